"""Marian's model directories, and the directories and zip files of OPUS-MT: weights, vocabularies, `decoder.yml`.

Vocabularies of OPUS-MT are lists (`*.vocab.yml`, piece to row) beside `source.spm` and `target.spm`; what is made of
them says `pipeline.model.formats.vocabularies`. A vocabulary that is itself a `.spm` stays as it is. Dictionaries of
words, and text segmented by anything else than SentencePiece, are not supported.
"""

import io
import json
import logging
import shutil
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pipeline.common.errors import UserError
from pipeline.model import parity
from pipeline.model.decoding import decoder_yml
from pipeline.model.formats import npz, pieces
from pipeline.model.formats.directory import whole_directory
from pipeline.model.formats.vocabularies import SPM_NAMES, ListedVocabs, Side, by_row
from pipeline.model.transformer import Transformer

logger = logging.getLogger(__name__)

MODEL_FILE = "model.npz"


class _Files:
    """The files of a directory or a zip file, by name. Nothing of a zip file is ever unpacked onto the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        if path.is_dir():
            self._folder = ""
            self.names = sorted(file.name for file in path.iterdir() if file.is_file())
            return
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise UserError(f"{path} does not exist") from error
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{path} is neither a directory nor a sound zip file: {error}") from error
        files = [PurePosixPath(entry.filename) for entry in self._zip.infolist() if not entry.is_dir()]
        # A model may lie in a folder of the zip file: the uppermost one that has weights.
        weights = sorted((file for file in files if file.suffix == ".npz"), key=lambda file: len(file.parts))
        folder = weights[0].parent if weights else PurePosixPath()
        self._folder = "" if folder == PurePosixPath() else f"{folder}/"
        self.names = sorted(file.name for file in files if file.parent == folder)

    def read(self, name: str) -> bytes:
        if name not in self.names:
            raise UserError(f"{self.path} has no file {name}: it has {', '.join(self.names) or 'none'}")
        if self._zip is None:
            return (self.path / name).read_bytes()
        try:
            return self._zip.read(self._folder + name)
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
            raise UserError(f"{name} in {self.path} cannot be read: {error}") from error

    def one(self, ending: str) -> str | None:
        """The only file of this ending. Raises UserError when there are several."""
        found = [name for name in self.names if name.endswith(ending)]
        if len(found) > 1:
            raise UserError(f"{self.path} has several *{ending} ({', '.join(found)}): name the .npz to convert")
        return found[0] if found else None


@dataclass(frozen=True)
class _Package:
    files: _Files
    weights: str
    vocabs: ListedVocabs

    def arrays(self) -> dict[str, npz.Array]:
        content = io.BytesIO(self.files.read(self.weights))
        return npz.load_arrays(f"{self.files.path}/{self.weights}", content=content)


def load(path: str | Path) -> Transformer:
    """Read a model, in evaluation mode; `write_vocabs` writes the vocabularies that fit it.

    `path` is a directory, a zip file, or one of several model.npz in a directory. Raises UserError when a part is
    missing, damaged or of another model.
    """
    package = _open(Path(path))
    return package.vocabs.fit(npz.from_arrays(package.arrays(), f"{path}/{package.weights}"))


def load_weights(path: str | Path) -> dict[str, npz.Array] | None:
    """The arrays of the weights as they are stored, for `npz.save(like=…)`; None when `load` changes rows."""
    package = _open(Path(path))
    return package.arrays() if package.vocabs.keep_rows else None


def write_vocabs(path: str | Path, folder: str | Path) -> tuple[Path, Path]:
    """Write source.spm and target.spm, whose ids are the model's rows, into a folder; returns their paths."""
    return _open(Path(path)).vocabs.write(folder)


def same_segmentation(path: str | Path, texts: Sequence[str]) -> int:
    """How many texts get the ids that Marian reads of them, with the vocabulary of `write_vocabs`."""
    return _open(Path(path)).vocabs.same_segmentation(texts)


def save(
    model: Transformer,
    path: str | Path,
    vocabs: tuple[Path, Path],
    like: Mapping[str, npz.Array] | None = None,
    sample: parity.Sample | None = None,
) -> None:
    """Write a directory that Marian, and `load`, read: model.npz (see `npz.save` for `like`), the vocabularies, and
    decoder.yml. With a sample what was written is read again and compared, and the figures are logged."""
    with whole_directory(path) as folder:
        npz.save(model, folder / MODEL_FILE, like)
        for vocab, name in zip(vocabs, SPM_NAMES, strict=True):
            shutil.copyfile(vocab, folder / name)
        (folder / "decoder.yml").write_text(decoder_yml(MODEL_FILE, SPM_NAMES), encoding="utf-8")
        if sample:
            again = npz.load(folder / MODEL_FILE)
            found = parity.compare(parity.TorchEngine(model), parity.TorchEngine(again), sample)
            logger.info(f"model.npz, read again, against what was written {found.describe()}")
            parity.Bar(largest=0.0, same_greedy=True).check(found, MODEL_FILE)


def _open(path: Path) -> _Package:
    weights: str | None
    if path.suffix == ".npz":
        files, weights = _Files(path.parent), path.name
        own = f"{path.name}.decoder.yml"
        decoder_file = next((name for name in (own, "decoder.yml") if name in files.names), None)
        decoder = _yaml(files, decoder_file) if decoder_file else {}
    else:
        files = _Files(path)
        decoder_file = "decoder.yml" if "decoder.yml" in files.names else files.one(".decoder.yml")
        decoder = _yaml(files, decoder_file) if decoder_file else {}
        models = [_base_name(name) for name in decoder.get("models") or []]
        if len(models) > 1:
            raise UserError(f"{path} is an ensemble of {len(models)} models: convert each .npz by itself")
        weights = models[0] if models else files.one(".npz")
    if weights is None:
        raise UserError(f"{path} is not a model: it has no config.json, no decoder.yml and no model.npz")
    names = [_base_name(name) for name in decoder.get("vocabs") or []] or _guess_vocabs(files)
    if len(names) != 2:
        raise UserError(f"{path} has {len(names)} vocabularies: a model for translation has two")
    sides = [_side(files, name, place) for place, name in enumerate(names)]
    return _Package(files, weights, ListedVocabs(sides[0], sides[1]))


def _base_name(name: Any) -> str:
    # Paths are those of the machine on which a model was trained; its files lie here side by side.
    return PurePosixPath(str(name)).name


def _guess_vocabs(files: _Files) -> list[str]:
    pairs = [[f"{side}.vocab.yml" for side in ("src", "trg")], ["vocab.yml", "vocab.yml"], list(SPM_NAMES)]
    for endings in pairs:
        found = [files.one(ending) for ending in endings]
        if all(found):
            return [name for name in found if name]
    raise UserError(f"{files.path} has no vocabularies: *.vocab.yml, or source.spm and target.spm, are needed")


def _side(files: _Files, name: str, place: int) -> Side:
    full = f"{files.path}/{name}"
    if name.endswith(".spm"):
        spm = files.read(name)
        return Side(pieces.read_pieces(spm, full), spm, full)
    spm_name = SPM_NAMES[place]
    if spm_name not in files.names:
        raise UserError(
            f"{files.path} has no {spm_name} beside {name}: only models that segment with SentencePiece are supported"
        )
    return Side(_listed(files, name), files.read(spm_name), full)


def _listed(files: _Files, name: str) -> list[str]:
    if name.endswith((".yml", ".yaml", ".json")):
        rows = _yaml(files, name)
        return by_row(rows, f"{files.path}/{name}")
    try:
        return files.read(name).decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{files.path}/{name} is not a vocabulary: {error}") from error


def _yaml(files: _Files, name: str) -> dict[str, Any]:
    """A mapping of a YAML or JSON file with nothing but texts in it: a piece `no` is no boolean."""
    content = files.read(name)
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        text = content.decode("utf-8")
        # JSON escapes characters beyond U+FFFF as pairs, which YAML does not join.
        value = json.loads(text) if name.endswith(".json") else yaml.load(text, Loader=loader)
    except (UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{files.path}/{name} is not sound: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{files.path}/{name} is not sound: it must be a mapping")
    return value
