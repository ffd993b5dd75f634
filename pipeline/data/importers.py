"""The importers, each a module `<name>_importer` with `open_source(rest, languages, folder)`, loaded when it is needed.

Those that fetch files of a known place have `addresses(rest, languages)`, too.
"""

import importlib
from typing import Any


def load_importer(importer: str) -> Any:
    """The module of an importer that `pipeline.data.names` knows."""
    return importlib.import_module(f"pipeline.data.{importer.replace('-', '_')}_importer")
