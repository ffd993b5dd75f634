"""COMET, a learned metric, by its makers' package `unbabel-comet`, which Limbeck does not need otherwise.

Source: Rei et al., "COMET: A Neural Framework for MT Evaluation", 2020.
"""

import importlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from pipeline.common.errors import UserError

BATCH_SIZE = 16
_CHECKPOINT = Path("checkpoints", "model.ckpt")


class CometScore(TypedDict):
    """A system score as the model gives it (0 to about 1 for most), the model and the package's version."""

    score: float
    model: str
    signature: str


class Comet:
    """A COMET model, by the path of its checkpoint or by its name on Hugging Face's hub."""

    def __init__(self, model: str) -> None:
        """Loads nothing heavy yet. Raises UserError when the package or the path is missing."""
        self.name = model
        try:
            self._package: Any = importlib.import_module("comet")
        except ImportError as error:
            raise UserError(
                f"COMET scores need the package unbabel-comet, which cannot be imported ({error}): "
                "pip install 'limbeck[comet]', or leave COMET out"
            ) from error
        path = Path(model)
        self._checkpoint: Path | None = path / _CHECKPOINT if path.is_dir() else path if path.is_file() else None
        if self._checkpoint is not None and not self._checkpoint.is_file():
            raise UserError(f"{path} is no COMET model: it has no {_CHECKPOINT}")
        if self._checkpoint is None and (path.is_absolute() or model.count("/") != 1 or model.startswith(".")):
            raise UserError(
                f"the COMET model {model} does not exist: give a checkpoint, its model's folder, or a name on the hub "
                "such as Unbabel/wmt22-comet-da"
            )

    def score(self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> CometScore:
        """The model's system score. A model that needs no references is given none.

        Raises UserError when the model cannot be downloaded or loaded.
        """
        try:
            checkpoint = self._checkpoint or self._package.download_model(self.name)
            model = self._package.load_from_checkpoint(str(checkpoint))
        except Exception as error:  # the package raises bare Exception and KeyError
            raise UserError(f"the COMET model {self.name} cannot be loaded: {error}") from error
        rows = [
            {"src": source, "mt": hypothesis, "ref": reference}
            for source, hypothesis, reference in zip(sources, hypotheses, references, strict=True)
        ]
        if not model.requires_references():
            for row in rows:
                del row["ref"]
        result = model.predict(rows, batch_size=BATCH_SIZE, gpus=0, progress_bar=False)
        version = importlib.metadata.version("unbabel-comet")
        return CometScore(
            score=round(float(result.system_score), 4),
            model=self.name,
            signature=f"model:{self.name}|version:{version}",
        )
