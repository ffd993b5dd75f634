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
from torch import Tensor, nn

from pipeline.common.errors import UserError
from pipeline.common.files import sha256
from pipeline.model.formats import npz
from pipeline.model.transformer import Transformer
from pipeline.train.mixture import DataPosition
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


@dataclass(frozen=True)
class Trained:
    """The tensors that training changes. `projections` are those of hidden-state losses, if there are any."""

    model: Transformer
    smoothed: Transformer | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    projections: nn.Module | None = None

    def state_dict(self) -> dict[str, Any]:
        """Everything but the model's parameters, which have a file of their own."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "smoothed": self.smoothed.state_dict() if self.smoothed is not None else {},
            "scaler": self.scaler.state_dict(),
            "projections": self.projections.state_dict() if self.projections is not None else {},
        }

    def load(self, parameters: dict[str, Tensor], state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(parameters)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.smoothed is not None:
            self.smoothed.load_state_dict(state["smoothed"] or parameters)
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.projections is not None:
            self.projections.load_state_dict(state["projections"])


def random_state() -> dict[str, Any]:
    """The state of this process's random generators."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"processor": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["processor"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def save_checkpoint(
    folder: Path,
    trained: Trained,
    state: TrainingState,
    random_states: list[dict[str, Any]],
    identity: Mapping[str, Any],
) -> Path:
    """Write `folder`/checkpoint-{updates}, whole or not at all, and remove all but the newest two.

    It holds the parameters (model.npz), the states of the optimizer, of the smoothed parameters and of every process's
    random generators (optimizer.pt), and progress.yml: the state, `identity`, the values that must agree for it to be
    continued, and the digests of the other two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"checkpoint-{state.progress.updates:08d}"
    partial = folder / f"{_PARTIAL}{state.progress.updates:08d}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    npz.save(trained.model, partial / MODEL_FILE)
    torch.save({**trained.state_dict(), "random": random_states}, partial / OPTIMIZER_FILE)
    progress = {
        "state": state.to_yaml(),
        "identity": dict(identity),
        "digests": {name: sha256(partial / name) for name in (MODEL_FILE, OPTIMIZER_FILE)},
    }
    (partial / PROGRESS_FILE).write_text(yaml.safe_dump(progress, sort_keys=False), encoding="utf-8")
    for path in partial.iterdir():
        _sync(path)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _sync(folder)
    for old in _checkpoints(folder)[_KEEP:]:
        shutil.rmtree(old)
    return final


def clean_up(folder: Path) -> None:
    """Remove checkpoints that were never finished, left by a kill, with a log line."""
    for partial in folder.glob(f"{_PARTIAL}*"):
        logger.warning(f"training: ignoring {partial.name}, a checkpoint that was never finished")
        shutil.rmtree(partial, ignore_errors=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a folder, or None when there is no checkpoint.

    One that is damaged (a file is missing, or differs from what was written) is named in the log and passed over.
    Raises UserError when there are checkpoints but none is whole: training anew would throw work away unasked.
    """
    if not folder.is_dir():
        return None
    damaged = []
    for checkpoint in _checkpoints(folder):
        problem = find_damage(checkpoint)
        if problem is None:
            return checkpoint
        logger.warning(f"training: passing over {checkpoint}, which is damaged: {problem}")
        damaged.append(checkpoint.name)
    if damaged:
        raise UserError(
            f"no checkpoint in {folder} is whole ({', '.join(damaged)}): restore one, or empty the folder to begin anew"
        )
    return None


def check_identity(checkpoint: Path, identity: Mapping[str, Any]) -> None:
    """Raise UserError naming every value in which a checkpoint differs from this run: it could not be continued."""
    found = read_identity(checkpoint)
    differing = [
        f"{name} is {identity.get(name)} here but {found.get(name)} there"
        for name in sorted(identity.keys() | found.keys())
        if identity.get(name) != found.get(name)
    ]
    if differing:
        raise UserError(
            f"{checkpoint} is of another training ({'; '.join(differing)}): give another --checkpoint-dir to begin anew"
        )


def read_identity(checkpoint: Path) -> dict[str, Any]:
    """The values that must agree for a checkpoint to be continued. Raises UserError when it cannot be read."""
    identity: dict[str, Any] = _read_progress(checkpoint)["identity"]
    return identity


def load_checkpoint(checkpoint: Path, trained: Trained, rank: int = 0) -> TrainingState:
    """Load a checkpoint into the tensors and this process's random generators; return its state.

    A checkpoint of fewer processes has no generators for this one: those it has by now stay. Raises UserError when a
    file of it cannot be understood.
    """
    try:
        parameters: dict[str, Tensor] = npz.load(checkpoint / MODEL_FILE).state_dict()
        tensors = torch.load(checkpoint / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
        trained.load(parameters, tensors)
        state = TrainingState.from_yaml(_read_progress(checkpoint)["state"])
        if rank < len(tensors["random"]):
            set_random_state(tensors["random"][rank])
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, UnpicklingError) as error:
        raise UserError(
            f"{checkpoint} cannot be read ({error}): it was written by another version of Limbeck or of torch"
        ) from error
    return state


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with the files of a checkpoint, or None."""
    missing = [name for name in (MODEL_FILE, OPTIMIZER_FILE, PROGRESS_FILE) if not (checkpoint / name).is_file()]
    if missing:
        return f"it has no {' and no '.join(missing)}"
    try:
        digests = _read_progress(checkpoint)["digests"]
        changed = [name for name in (MODEL_FILE, OPTIMIZER_FILE) if sha256(checkpoint / name) != digests[name]]
    except (UserError, OSError, KeyError) as error:
        return str(error)
    return f"{' and '.join(changed)} changed after being written" if changed else None


def _read_progress(checkpoint: Path) -> dict[str, Any]:
    try:
        progress: dict[str, Any] = yaml.safe_load((checkpoint / PROGRESS_FILE).read_text(encoding="utf-8"))
        return {name: progress[name] for name in ("state", "identity", "digests")}
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError) as error:
        raise UserError(f"{checkpoint / PROGRESS_FILE} cannot be read") from error


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
