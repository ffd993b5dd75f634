"""Curves on Weights & Biases."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.common.errors import UserError

_PROJECT, _RUN = "LIMBECK_WANDB_PROJECT", "LIMBECK_WANDB_RUN"


class WandbPublisher:
    """Publishes the curves of one training, a run that goes on when training does.

    wandb's own variables decide where to and how: WANDB_API_KEY, WANDB_MODE (offline writes files only), WANDB_ENTITY.
    Raises UserError when the package is not installed.
    """

    def __init__(self, project: str, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "wandb-publication needs the wandb package: pip install 'limbeck[tracking]', or set it to false"
            ) from error
        self._identity = folder / "wandb-run-id"
        identity = self._identity.read_text(encoding="utf-8") if self._identity.exists() else secrets.token_hex(4)
        folder.mkdir(parents=True, exist_ok=True)
        self._identity.write_text(identity, encoding="utf-8")
        try:
            self._run = wandb.init(
                project=project, name=name, id=identity, resume="allow", dir=str(folder), config=dict(config)
            )
        except (wandb.errors.Error, OSError) as error:
            raise UserError(
                f"Weights & Biases cannot be used ({error}): set WANDB_API_KEY, or WANDB_MODE=offline to keep the "
                "curves here"
            ) from error

    def publish(self, values: Mapping[str, float], update: int) -> None:
        self._run.log({**values, "update": update})

    def close(self) -> None:
        self._run.finish()


def asked_publisher(folder: Path, config: Mapping[str, Any]) -> WandbPublisher | None:
    """The publisher that the variable LIMBECK_WANDB_PROJECT asks for, or None; LIMBECK_WANDB_RUN names the run."""
    project = os.environ.get(_PROJECT)
    return WandbPublisher(project, os.environ.get(_RUN, "training"), folder, config) if project else None
