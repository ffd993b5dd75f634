"""Task graph -> finished tasks: engines behind one interface, `limbeck_engines.base.Engine`."""

import importlib
from typing import TYPE_CHECKING

from pipeline.common.errors import UserError

if TYPE_CHECKING:
    from limbeck_engines.base import Engine

# What --engine calls them, and their classes; a module is imported when its engine is used.
ENGINES = {
    "local": "limbeck_engines.local:LocalEngine",
    "slurm": "limbeck_engines.slurm:SlurmEngine",
    "taskcluster": "limbeck_engines.taskcluster:TaskclusterEngine",
}


def engine_class(name: str) -> "type[Engine]":
    """The class of an engine. Raises UserError when there is none of that name."""
    if name not in ENGINES:
        raise UserError(f"there is no engine {name}: known are {', '.join(ENGINES)}")
    module, _, attribute = ENGINES[name].partition(":")
    found: type[Engine] = getattr(importlib.import_module(module), attribute)
    return found
