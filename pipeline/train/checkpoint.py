"""Checkpoints: everything that training needs to go on as if it had never stopped."""

import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from torch import Tensor

from pipeline.common.errors import UserError
from pipeline.model.formats import npz
from pipeline.model.transformer import Transformer
from pipeline.train.data import DataPosition
from pipeline.train.schedule import Progress

logger = logging.getLogger(__name__)

MODEL_FILE, OPTIMIZER_FILE, PROGRESS_FILE = "model.npz", "optimizer.pt", "progress.yml"
_KEEP = 2
_NAME = re.compile(r"checkpoint-(\d+)")
_PARTIAL = ".checkpoint-"


@dataclass
class TrainingState:
    """What training knows beside its tensors."""

    progress: Progress = field(default_factory=Progress)
    position: DataPosition = field(default_factory=DataPosition)
    seconds: float = 0.0
    validated: int = 0  # the update of the last validation
    validations_due: int = 0  # how many periods of valid-freq that validation has covered
    best: float | None = None  # value of the best metric …
    best_update: int = 0  # … and the update it was reached at
    stalled: int = 0

    def to_yaml(self) -> dict[str, Any]:
        return {**asdict(self), "progress": asdict(self.progress), "position": self.position.to_yaml()}

    @classmethod
    def from_yaml(cls, values: Mapping[str, Any]) -> "TrainingState":
        return cls(
            **{
                **values,
                "progress": Progress(**values["progress"]),
                "position": DataPosition.from_yaml(values["position"]),
            }
        )


def save_checkpoint(
    folder: Path,
    model: Transformer,
    smoothed: Transformer | None,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    identity: Mapping[str, Any],
) -> Path:
    """Write `folder`/checkpoint-{updates}, whole or not at all, and remove all but the newest two.

    It holds the parameters (model.npz), the optimizer's state, the smoothed parameters and torch's random generators
    (optimizer.pt), and progress.yml: the state and `identity`, the values that must agree for it to be continued.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"checkpoint-{state.progress.updates:08d}"
    partial = folder / f"{_PARTIAL}{state.progress.updates:08d}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    npz.save(model, partial / MODEL_FILE)
    tensors: dict[str, Any] = {
        "optimizer": optimizer.state_dict(),
        "smoothed": smoothed.state_dict() if smoothed is not None else {},
        "random": torch.get_rng_state(),
        "random-cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    torch.save(tensors, partial / OPTIMIZER_FILE)
    progress = {"state": state.to_yaml(), "identity": dict(identity)}
    (partial / PROGRESS_FILE).write_text(yaml.safe_dump(progress, sort_keys=False), encoding="utf-8")
    for path in partial.iterdir():
        _sync(path)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _sync(folder)
    for old in _checkpoints(folder)[_KEEP:]:
        shutil.rmtree(old)
    return final


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a folder, or None. Partial ones, left by a kill, are removed with a log line."""
    if not folder.is_dir():
        return None
    for partial in folder.glob(f"{_PARTIAL}*"):
        logger.warning(f"training: ignoring {partial.name}, a checkpoint that was never finished")
        shutil.rmtree(partial, ignore_errors=True)
    for checkpoint in _checkpoints(folder):
        missing = [name for name in (MODEL_FILE, OPTIMIZER_FILE, PROGRESS_FILE) if not (checkpoint / name).is_file()]
        if not missing:
            return checkpoint
        logger.warning(f"training: ignoring {checkpoint.name}, which has no {' and no '.join(missing)}")
    return None


def check_identity(checkpoint: Path, identity: Mapping[str, Any]) -> None:
    """Raise UserError naming every value in which a checkpoint differs from this run: it could not be continued."""
    found: dict[str, Any] = _read_progress(checkpoint)["identity"]
    differing = [
        f"{name} is {identity.get(name)} here but {found.get(name)} there"
        for name in sorted(identity.keys() | found.keys())
        if identity.get(name) != found.get(name)
    ]
    if differing:
        raise UserError(
            f"{checkpoint} is of another training ({'; '.join(differing)}): give another --checkpoint-dir to begin anew"
        )


def load_checkpoint(
    checkpoint: Path, model: Transformer, smoothed: Transformer | None, optimizer: torch.optim.Optimizer
) -> TrainingState:
    """Load a checkpoint into model, smoothed parameters, optimizer and random generators; return its state.

    Raises UserError when a file of it is damaged.
    """
    try:
        loaded: dict[str, Tensor] = npz.load(checkpoint / MODEL_FILE).state_dict()
        model.load_state_dict(loaded)
        tensors = torch.load(checkpoint / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(tensors["optimizer"])
        if smoothed is not None:
            smoothed.load_state_dict(tensors["smoothed"] or loaded)
        state = TrainingState.from_yaml(_read_progress(checkpoint)["state"])
    except (UserError, OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, UnpicklingError) as error:
        raise UserError(f"{checkpoint} is damaged: remove it to continue from an older one") from error
    torch.set_rng_state(tensors["random"])
    if tensors["random-cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(tensors["random-cuda"])
    return state


def _read_progress(checkpoint: Path) -> dict[str, Any]:
    try:
        progress: dict[str, Any] = yaml.safe_load((checkpoint / PROGRESS_FILE).read_text(encoding="utf-8"))
        return {"state": progress["state"], "identity": progress["identity"]}
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        raise UserError(f"{checkpoint / PROGRESS_FILE} is damaged: remove the checkpoint") from error


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True)


def _sync(path: Path) -> None:
    # A rename can reach the disk before the contents of what was renamed: after a power cut the file would be empty.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
