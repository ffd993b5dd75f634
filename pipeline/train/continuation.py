"""Going on from another training's checkpoint, whose data may be other data by now."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.common.errors import UserError
from pipeline.model.formats import npz
from pipeline.model.transformer import Transformer
from pipeline.train.checkpoint import Trained, TrainingState, find_damage, load_checkpoint, read_identity
from pipeline.train.mixture import DataPosition
from pipeline.train.schedule import Progress

logger = logging.getLogger(__name__)

# Beside a checkpoint: the best model until then.
_BEST_FILES = ("best.npz", "final.model.npz.best-*.npz")
# What a training began with is history once it has a checkpoint.
_HISTORY = ("init", "initialise")


def go_on_from(
    folder: Path, trained: Trained, identity: Mapping[str, Any], data_keys: frozenset[str], rank: int
) -> TrainingState:
    """Load the checkpoint in `folder` into the tensors and random generators; returns the state to go on from.

    Parameters, optimizer, schedule and progress are the checkpoint's. So is the place in the data, unless it is other
    data (`data_keys` of the identities differ, or rows of corpora): then reading begins anew, and the log says so.
    What was best is judged anew, since devset and metric may be others.

    Raises UserError when a file is missing or damaged, and when model or vocabularies are others.
    """
    if damage := find_damage(folder):
        raise UserError(
            f"{folder} cannot be continued: {damage}; to begin a new training with its parameters only, use init"
        )
    theirs = read_identity(folder)
    differing = {
        name: f"{name} is {identity.get(name)} here but {theirs.get(name)} there"
        for name in sorted(identity.keys() | theirs.keys())
        if identity.get(name) != theirs.get(name) and name not in _HISTORY
    }
    other_data = [text for name, text in differing.items() if name in data_keys or name.startswith("rows of ")]
    if other_model := [text for text in differing.values() if text not in other_data]:
        raise UserError(
            f"{folder} is the checkpoint of another model ({'; '.join(other_model)}): give the same options and "
            "vocabularies, or begin a new training with its parameters (init)"
        )
    state = load_checkpoint(folder, trained, rank)
    logger.info(f"training: going on from update {state.progress.updates:,} of {folder}")
    if other_data:
        logger.warning(
            f"training: its data was other data ({'; '.join(other_data)}), so reading begins at the first epoch; "
            "the schedule goes on"
        )
        state.position = DataPosition()
        state.progress = Progress(updates=state.progress.updates, tokens=state.progress.tokens)
    state.best, state.best_update, state.stalled, state.validated, state.validations_due = None, 0, 0, 0, 0
    return state


def best_so_far(folder: Path, current: Transformer) -> Transformer:
    """The best model beside a checkpoint, or the current one where there is none.

    Raises UserError when it is of another architecture.
    """
    found = [path for pattern in _BEST_FILES for path in sorted(folder.glob(pattern))]
    if not found:
        return current
    with torch.random.fork_rng(devices=[]):  # a model is born with random parameters
        model = npz.load(found[0])
    if model.config.to_yaml() != current.config.to_yaml():
        raise UserError(f"{found[0]} is of another architecture than the checkpoint beside it: remove it")
    return model.to(next(current.parameters()).device)
