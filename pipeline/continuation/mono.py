"""Fetch a text of one language that was cleaned elsewhere, check it, and write it under the pipeline's name.

A text that does not look like its language is warned of, from a sample.
"""

import argparse
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.common.command import run_command
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_json, write_lines
from pipeline.common.remote import fetch
from pipeline.continuation.sample import LanguageSample

EXAMPLE = """example:
  python -m pipeline.continuation.mono --lang ru --uri https://host/mono.ru.zst --output mono.ru.zst \\
    --stats mono.stats.json
"""

logger = logging.getLogger(__name__)


def bring_text(uri: str, language: str | None, output: Path) -> dict[str, Any]:
    """Fetch, check and write a text, of no language when there is nothing to be checked; returns its statistics.

    Raises UserError naming the address of what is not whole, TransientError when a server cannot be reached now.
    """
    sample = LanguageSample(language) if language else None
    with tempfile.TemporaryDirectory(prefix="limbeck-text-", dir=output.parent) as folder:
        path = Path(folder) / ("text.zst" if uri.endswith(".zst") else "text")
        logger.info(f"fetching {uri}")
        fetch(uri, path)
        try:
            with write_lines(output) as writer:
                for line in read_lines(path):
                    writer.write(line)
                    if sample:
                        sample.add(line)
                if not writer.lines:
                    raise UserError(f"{uri} is empty")
                lines = writer.lines
        except UserError as error:
            raise UserError(str(error).replace(str(path), uri)) from error
    if sample and (warning := sample.warning()):
        logger.warning(f"{uri}: {warning}")
    return {"read": lines, "kept": lines, "dropped": {}, "origin": {"uri": uri}}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uri", required=True, help="where the text is: plain, .gz or .zst, a sentence per line")
    parser.add_argument("--lang", required=True, help="its language")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--stats", type=Path, required=True, help="JSON to write")
    args = parser.parse_args(arguments)
    stats = bring_text(args.uri, args.lang, args.output)
    write_json(args.stats, {"dataset": args.stats.name.removesuffix(".stats.json"), **stats})


if __name__ == "__main__":
    run_command(main)
