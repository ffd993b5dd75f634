"""The engines of `limbeck translate`, and which of them a folder has a model for.

Each loads what it needs and nothing of the others, so that a command that translates one line starts at once.
"""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from pipeline.common.errors import UserError
from pipeline.common.files import read_json
from pipeline.model.browser_engine import BrowserEngine, ModelFiles, engine_version, is_browser_export
from pipeline.model.decoding import LENGTH_FACTOR, LONGEST
from pipeline.model.vocab import Vocab, one_line

CTRANSLATE2, TORCH, BROWSER = "ctranslate2", "torch", "browser"
# The best first: CTranslate2 is the fastest, torch computes every architecture in float32 on all processors, the
# browser's engine has one thread of WebAssembly.
ENGINES = (CTRANSLATE2, TORCH, BROWSER)
VMAP = "vmap.txt"
BATCH = 32  # lines of similar length
_WEIGHTS = {CTRANSLATE2: "model.bin", TORCH: "model.npz"}


@dataclass(frozen=True)
class Settings:
    """How to translate."""

    beam_size: int = 1
    threads: int = 1
    float32: bool = False
    html: bool = False
    shortlist: bool = False
    at_once: bool = False  # every line is waited for


class Engine(Protocol):
    """Translates; `description` is for people: "CTranslate2 int8, export/ctranslate2/int8"."""

    description: str

    def translate(self, lines: Sequence[str]) -> list[str]:
        """One line for each; an empty one for a line without words."""

    def close(self) -> None:
        """End what has been started."""


def find_models(model: Path, float32: bool = False) -> dict[str, Path]:
    """The folders from which the engines can load a model, the best first: the folder itself, what an export has in
    it, and an export for the browser that lies in it or beside it.

    Raises UserError when there is none.
    """
    if not model.exists():
        raise UserError(f"{model} does not exist")
    precision = "float32" if float32 else "int8"
    places = {
        CTRANSLATE2: (model, model / "ctranslate2" / precision, model / precision),
        TORCH: (model, model / "marian"),
        BROWSER: (model, model / "browser"),
    }
    found = {}
    for engine in ENGINES:
        folders = [folder for folder in places[engine] if _holds_model(engine, folder)]
        if folders:
            found[engine] = folders[0]
    if not found:
        raise UserError(
            f"{model} holds no model: an export folder is needed, a CTranslate2 folder (model.bin), a folder with "
            "model.npz, or an export for the browser (metadata.json)"
        )
    beside = model.absolute().parent / "browser"
    if BROWSER not in found and _holds_model(BROWSER, beside):
        found[BROWSER] = beside
    return found


def _holds_model(engine: str, folder: Path) -> bool:
    return is_browser_export(folder) if engine == BROWSER else (folder / _WEIGHTS[engine]).is_file()


def choose_engine(model: Path, wanted: str | None, settings: Settings) -> tuple[str, Path]:
    """The engine to use and its folder: the one wanted, else the browser's for HTML, else the best that has a model.

    Raises UserError when the folder has no model for it, or it cannot do what is asked.
    """
    found = find_models(model, settings.float32)
    if settings.html and wanted in (None, BROWSER):
        if BROWSER not in found:
            raise UserError(
                f"only the browser's engine keeps tags, and {model} has no browser/ in it or beside it: give a folder "
                "that the export for the browser (experiment.browser-export in the training config) has written"
            )
        wanted = BROWSER
    if settings.html and wanted != BROWSER:
        raise UserError(f"{wanted} would translate tags as words: --html needs --engine {BROWSER}")
    engine = wanted or next(iter(found))
    if engine not in found:
        raise UserError(f"{model} has no model for {engine}: it has one for {', '.join(found)}")
    if settings.shortlist and engine == TORCH:
        raise UserError("--shortlist is for CTranslate2; the browser's engine always uses the one of its export")
    return engine, found[engine]


def load_engine(engine: str, folder: Path, settings: Settings) -> Engine:
    """Raises UserError when the folder is not whole, or cannot do what is asked."""
    kinds: dict[str, Callable[[Path, Settings], Engine]] = {
        CTRANSLATE2: CTranslate2Engine,
        TORCH: TorchEngine,
        BROWSER: WebAssemblyEngine,
    }
    return kinds[engine](folder, settings)


class _PieceEngine(ABC):
    """An engine that is given SentencePiece's ids; see Engine."""

    def __init__(self, vocabs: tuple[Vocab, Vocab]) -> None:
        self._vocabs = vocabs

    def translate(self, lines: Sequence[str]) -> list[str]:
        ids = self._vocabs[0].encode(lines, add_eos=False)
        for line, source in zip(lines, ids, strict=True):
            if len(source) > LONGEST:
                cut = f"only the first {LONGEST} of {len(source)} pieces of a line are translated"
                print(f"warning: {cut}: {line[:60]!r}", file=sys.stderr)
        filled = [place for place, source in enumerate(ids) if source]
        decoded = self._decode_all([ids[place][:LONGEST] for place in filled])
        translations = [""] * len(ids)
        for place, text in zip(filled, self._vocabs[1].decode(decoded), strict=True):
            translations[place] = text
        return translations

    def close(self) -> None:  # noqa: B027 (nothing has been started)
        """Nothing has been started."""

    @abstractmethod
    def _decode_all(self, sources: Sequence[list[int]]) -> list[list[int]]:
        """Target ids of source ids, both without the end of sentence. No source is empty."""


class CTranslate2Engine(_PieceEngine):
    """A CTranslate2 directory with its SentencePiece vocabularies."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        import ctranslate2

        vocabs = find_vocabs(folder)
        if settings.shortlist and not (folder / VMAP).is_file():
            raise UserError(f"{folder} has no {VMAP}: export the model with a shortlist, or leave out --shortlist")
        # A line that is waited for is computed by all threads; of many lines each thread has its own.
        several = (1, settings.threads) if settings.at_once else (settings.threads, 1)
        try:
            self._translator: Any = ctranslate2.Translator(
                str(folder), inter_threads=several[0], intra_threads=several[1]
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(f"CTranslate2 cannot load {folder}: {error}") from error
        precision = "int8" if self._translator.compute_type.startswith("int8") else self._translator.compute_type
        if settings.float32 and precision != "float32":
            raise UserError(f"{folder} has a model in {precision}: leave out --float32, or give the export's folder")
        super().__init__(vocabs)
        self._settings = settings
        self._target_ids = {piece: number for number, piece in enumerate(vocabs[1].all_pieces)}
        shortlist = ", with its shortlist" if settings.shortlist else ""
        self.description = f"CTranslate2 {precision}{shortlist}, {folder}"

    def _decode_all(self, sources: Sequence[list[int]]) -> list[list[int]]:
        pieces = self._vocabs[0].all_pieces
        waiting: dict[int, Any] = {}
        for batch in _batches([len(source) for source in sources]):
            results = self._translator.translate_batch(
                [[pieces[number] for number in sources[place]] for place in batch],
                beam_size=self._settings.beam_size,
                disable_unk=True,
                max_input_length=0,
                max_decoding_length=longest_translation(len(sources[batch[0]]) + 1),
                use_vmap=self._settings.shortlist,
                asynchronous=True,
            )
            waiting |= dict(zip(batch, results, strict=True))
        found = (waiting[place].result().hypotheses[0] for place in range(len(sources)))
        return [[self._target_ids[piece] for piece in hypothesis] for hypothesis in found]


class TorchEngine(_PieceEngine):
    """model.npz with its SentencePiece vocabularies, in float32."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        import torch

        from pipeline.model.formats import npz
        from pipeline.model.inference import InferenceModel

        torch.set_num_threads(settings.threads)
        model = npz.load(folder / "model.npz")
        super().__init__(find_vocabs(folder, model.config.dim_vocabs))
        self._model = InferenceModel(model)
        self._beam_size = settings.beam_size
        self.description = f"torch float32, {folder}"

    def _decode_all(self, sources: Sequence[list[int]]) -> list[list[int]]:
        from pipeline.model.parity import padded
        from pipeline.model.search import beam_search

        found: list[list[int]] = [[] for _ in sources]
        for batch in _batches([len(source) for source in sources]):
            ids, mask = padded([sources[place] for place in batch])
            for place, hypotheses in zip(batch, beam_search([self._model], ids, mask, self._beam_size), strict=True):
                found[place] = hypotheses[0].ids
        return found


class WebAssemblyEngine:
    """An export for the browser, in the browser's engine; see Engine."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        files = ModelFiles.of_export(folder)
        if settings.float32 and files.precision != "float32":
            raise UserError(f"{folder} has a model in {files.precision}: leave out --float32")
        if settings.beam_size != files.options.get("beam-size", 1):
            # Without its shortcut for greedy search, which gives no probabilities.
            options = {**files.options, "beam-size": settings.beam_size, "skip-cost": settings.beam_size == 1}
            files = ModelFiles(files.model, files.vocabs, options, files.shortlist, files.metadata)
        self._files, self._html = files, settings.html
        self._engine = BrowserEngine(files)
        self.description = f"the browser's engine (bergamot wasm {engine_version()}) {files.precision}, {folder}"

    def translate(self, lines: Sequence[str]) -> list[str]:
        translations = [""] * len(lines)
        for batch in _batches([len(line) for line in lines]):
            texts = [lines[place] for place in batch]
            try:
                found = self._engine.translate(texts, self._html)
            except UserError as error:
                raise self._explained(error, texts) from error
            for place, text in zip(batch, found, strict=True):
                translations[place] = one_line(text) if lines[place].strip() else ""
        return translations

    def close(self) -> None:
        self._engine.close()

    def _explained(self, error: UserError, texts: Sequence[str]) -> UserError:
        """The error with the first line that causes it by itself; the engine does not say which it was."""
        if not self._html:
            return error
        with BrowserEngine(self._files) as engine:
            for text in texts:
                try:
                    engine.translate([text], html=True)
                except UserError as its_own:
                    return UserError(f"{its_own}; a line of --html must be sound HTML: {text[:200]!r}")
        return error


def find_vocabs(folder: Path, sizes: tuple[int, int] | None = None) -> tuple[Vocab, Vocab]:
    """The SentencePiece vocabularies of source and target in a model's folder: those that decoder.yml names, those with
    the pieces that a CTranslate2 directory lists, or the only one.

    Raises UserError when they are not there, or (with `sizes`) not the model's.
    """
    decoder = folder / "decoder.yml"
    if decoder.is_file():
        names = (yaml.safe_load(decoder.read_text(encoding="utf-8")) or {}).get("vocabs") or []
        if len(names) != 2:
            raise UserError(f"{decoder} must name two vocabs, found {names}")
        vocabs = Vocab.load(folder / names[0]), Vocab.load(folder / names[1])
    else:
        present = [Vocab.load(path) for path in sorted(folder.glob("*.spm"))]
        source, target = (_listed_pieces(folder, side) for side in ("source", "target"))
        vocabs = _with_pieces(present, source, folder), _with_pieces(present, target, folder)
    for vocab, size in zip(vocabs, sizes or (), strict=False):
        if len(vocab) != size:
            raise UserError(f"{folder}: a vocabulary has {len(vocab)} pieces, but the model was trained with {size}")
    return vocabs


def _listed_pieces(folder: Path, side: str) -> list[str] | None:
    """The pieces that a CTranslate2 directory lists for a side; None where none are."""
    for name in (f"{side}_vocabulary.json", "shared_vocabulary.json"):
        if (folder / name).is_file():
            pieces: list[str] = read_json(folder / name)
            return pieces
    return None


def _with_pieces(present: Sequence[Vocab], pieces: list[str] | None, folder: Path) -> Vocab:
    fitting = [vocab for vocab in present if pieces is None or vocab.all_pieces == pieces]
    if pieces is None and len(fitting) > 1:
        raise UserError(f"{folder} has {len(fitting)} vocabularies, and no decoder.yml that says which is the source's")
    if not fitting:
        raise UserError(
            f"{folder} holds no vocabulary of its model: put the SentencePiece files (.spm) into it that it was "
            "trained with"
        )
    return fitting[0]


def longest_translation(source_length: int) -> int:
    """Pieces after which a translation is cut, as pipeline.model.search has it, which takes a second to import."""
    return min(math.ceil(LENGTH_FACTOR * source_length) + 10, LONGEST)


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Places in batches of similar length, the longest first."""
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
