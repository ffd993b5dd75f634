"""What the engine loads: the files of a folder that pipeline.export.browser has written, or others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.common.errors import UserError
from pipeline.common.files import read_json, sha256

METADATA = "metadata.json"
# A text is one sentence, whatever its punctuation, as it was in training; and all is computed on one thread.
RUN_OPTIONS = {"ssplit-mode": "sentence", "cpu-threads": 0, "quiet": True, "quiet-translation": True}


@dataclass(frozen=True)
class ModelFiles:
    """A model's files (one vocabulary when both languages share it), and the engine's options as its export has them.

    Metadata is the export's metadata.json; empty where there is none.
    """

    model: Path
    vocabs: Sequence[Path]
    options: Mapping[str, Any]
    shortlist: Path | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_export(cls, folder: str | Path) -> "ModelFiles":
        """The files of a browser export.

        Raises UserError, which names the file, when the folder is none, or a file is missing or not the one exported.
        """
        folder = Path(folder)
        if not is_browser_export(folder):
            raise UserError(f"{folder} is no export for the browser: no {METADATA} in it names the engine's files")
        metadata = read_json(folder / METADATA)
        try:
            files = metadata["files"]
            places = {role: folder / file["name"] for role, file in files.items()}
            for role, path in places.items():
                _check(path, files[role]["bytes"], files[role]["sha256"])
            vocabs = [places["vocab"]] if "vocab" in places else [places["srcvocab"], places["trgvocab"]]
            return cls(places["model"], vocabs, dict(metadata["engine-options"]), places.get("lex"), metadata)
        except KeyError as error:
            raise UserError(f"{folder / METADATA} has no {error}: export the model again") from error

    @property
    def paths(self) -> list[Path]:
        """All that the engine reads."""
        return [self.model, *self.vocabs, *([self.shortlist] if self.shortlist else [])]

    @property
    def precision(self) -> str:
        """Of the weights and of matrix products: "int8" or "float32"."""
        precision = str(self.options.get("gemm-precision", "float32"))
        return "int8" if precision.startswith("int8") else precision

    def described(self) -> dict[str, Any]:
        """What serve.mjs reads."""
        return {
            "model": str(self.model.absolute()),
            "vocabs": [str(path.absolute()) for path in self.vocabs],
            "shortlist": str(self.shortlist.absolute()) if self.shortlist else None,
            "options": yaml.safe_dump({**self.options, **RUN_OPTIONS}),
        }


def is_browser_export(folder: Path) -> bool:
    """Whether a folder's metadata.json is that of an export for the browser."""
    path = folder / METADATA
    if not path.is_file():
        return False
    metadata = read_json(path)
    return isinstance(metadata, dict) and "engine-options" in metadata


def _check(path: Path, size: int, digest: str) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing: copy the whole folder of the export")
    found = path.stat().st_size
    if found != size:
        raise UserError(f"{path} has {found:,} bytes, not the {size:,} that were exported: copy it again")
    if sha256(path) != digest:
        raise UserError(f"{path} is not what was exported: its sha256 is not that of {METADATA}; copy it again")
