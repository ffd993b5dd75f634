"""Translation models of other makers: a folder with a CTranslate2 model, its own tokenizer, and external.json, which
says how a text becomes the model's tokens. `python -m pipeline.continuation.external` writes such folders.

A source is `source-front`, the text's pieces and `source-back`; a translation is searched behind `target-prefix`, which
is no part of it. Those hold language tokens and the end of sentence, as the model's family wants them.
"""

import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import ctranslate2
import sentencepiece

from pipeline.common.errors import UserError
from pipeline.common.files import read_json
from pipeline.model.decoding import DecodingOptions
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.hardware import cpu_threads, has_gpu
from pipeline.model.search import Hypothesis, longest_translation
from pipeline.model.vocab import check_tag, is_tag, one_line, with_prefix

FILE = "external.json"
TOKENIZER_FOLDER = "tokenizer"  # of a Hugging Face tokenizer
SENTENCEPIECE_FILES = ("source.spm", "target.spm")
INSTALL = "pip install 'limbeck[huggingface]'"


@dataclass(frozen=True)
class Description:
    """What external.json says. `longest` is how many tokens the model has positions for, None for any number."""

    family: str
    tokenizer: str  # "sentencepiece" or "huggingface"
    source_language: str | None = None
    target_language: str | None = None
    source_front: Sequence[str] = ()
    source_back: Sequence[str] = ()
    source_prefix: str = ""  # words in front of every text, before it is split into pieces
    target_prefix: Sequence[str] = ()
    longest: int | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {name.replace("_", "-"): value for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def read(cls, folder: Path) -> "Description":
        """Raises UserError when there is no external.json, or it is not one."""
        values = read_json(folder / FILE)
        names = {field.name.replace("_", "-"): field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or not {"family", "tokenizer"} <= set(values) <= set(names):
            raise UserError(f"{folder / FILE} is not what pipeline.continuation.external writes: import the model anew")
        return cls(**{names[key]: value for key, value in values.items()})


def is_external(path: Path) -> bool:
    """Whether a path is a folder of another maker's model."""
    return (path / FILE).is_file()


def check_models(models: Sequence[Path], vocabs: tuple[Sequence[Path], Sequence[Path]]) -> bool:
    """Whether a model is of another maker. Raises UserError when it is and something else is given that it cannot be
    used with, and when it is not and its vocabularies are missing."""
    folder = next(filter(is_external, models), None)
    if folder is None:
        for flag, given in zip(("--src-vocab", "--trg-vocab"), vocabs, strict=True):
            if not given:
                raise UserError(f"{flag} is missing: {models[0]} is translated with a vocabulary (.spm) on each side")
            if len(given) not in (1, len(models)):
                raise UserError(
                    f"{flag} is given {len(given)} times for {len(models)} model{'s' * (len(models) > 1)}: give it "
                    "once, or once for each model"
                )
        return False
    if len(models) > 1:
        raise UserError(
            f"{folder} is a model of another maker, with pieces of its own: it cannot vote piece by piece with others. "
            "Translate with each and merge, or take one"
        )
    if vocabs[0] or vocabs[1]:
        raise UserError(f"{folder} brings its own tokenizer: leave --src-vocab and --trg-vocab away")
    return True


class Tokenizer(Protocol):
    """Text to pieces and back."""

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """Pieces of texts, without language tokens and the end of sentence."""

    def texts(self, pieces: Sequence[Sequence[str]]) -> list[str]:
        """Texts of pieces."""


class SentencePieceTokenizer:
    """source.spm and target.spm."""

    def __init__(self, folder: Path) -> None:
        self._source, self._target = (
            sentencepiece.SentencePieceProcessor(model_proto=(folder / name).read_bytes())
            for name in SENTENCEPIECE_FILES
        )

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        found: list[list[str]] = self._source.encode(list(texts), out_type=str)
        return found

    def texts(self, pieces: Sequence[Sequence[str]]) -> list[str]:
        found: list[str] = self._target.decode([list(row) for row in pieces])
        return found


class HuggingFaceTokenizer:
    """A tokenizer of transformers, from a folder on disk; its folder's code, if it has any, is not run."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = load_tokenizer(folder)

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        rows = self._tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [self._tokenizer.convert_ids_to_tokens(row) for row in rows]

    def texts(self, pieces: Sequence[Sequence[str]]) -> list[str]:
        rows = [self._tokenizer.convert_tokens_to_ids(list(row)) for row in pieces]
        found: list[str] = self._tokenizer.batch_decode(rows, skip_special_tokens=True)
        return found


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of transformers in a folder. Raises UserError when it cannot be read or transformers is missing."""
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"{folder} needs the tokenizers of Hugging Face Transformers: {INSTALL}") from error
    # MarianTokenizer asks for a package that it makes no use of when it splits a text.
    warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
    try:
        # Sentences longer than the model are cut by us, and counted: no limit, no warning.
        return transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, model_max_length=1 << 30
        )
    except Exception as error:  # transformers raises whatever its parsers raise
        raise UserError(f"transformers cannot read the tokenizer of {folder}: {error}") from error


def read_pieces(folder: Path, side: str) -> list[str]:
    """The model's tokens on a side ("source" or "target"), by number. Raises UserError when there is no list."""
    for name in (f"{side}_vocabulary", "shared_vocabulary"):
        if (path := folder / f"{name}.json").is_file():
            pieces: list[str] = json.loads(path.read_text(encoding="utf-8"))
            return pieces
        if (path := folder / f"{name}.txt").is_file():  # of CTranslate2 before 3.9
            return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    raise UserError(f"{folder} has no {side}_vocabulary.json and no shared_vocabulary.json: it is not a whole model")


class ExternalModel:
    """Translates batches of ids, like other engines; `encode` and `decode` make ids of texts and texts of ids.

    Ids are the places of pieces in the model's own lists. `longest` pieces of a source can be translated: what is
    longer is for the caller to cut.
    """

    def __init__(
        self,
        folder: Path,
        description: Description,
        options: DecodingOptions,
        n: int,
        prefix: str,
        device: str,
        threads: int,
    ) -> None:
        if prefix and description.source_prefix:
            raise UserError(
                f"{folder} already has the prefix {description.source_prefix!r} in front of every source, for its "
                f"languages: {prefix!r} cannot stand there too"
            )
        self._options, self._n, self._prefix = options, n, prefix.strip() or description.source_prefix
        self._front, self._back = list(description.source_front), list(description.source_back)
        self._target_prefix = list(description.target_prefix)
        self._source, self._target = (read_pieces(folder, side) for side in ("source", "target"))
        self._source_ids = {piece: number for number, piece in enumerate(self._source)}
        self._target_ids = {piece: number for number, piece in enumerate(self._target)}
        self._take_tag(folder)
        self._tokenizer: Tokenizer = (
            SentencePieceTokenizer(folder)
            if description.tokenizer == "sentencepiece"
            else HuggingFaceTokenizer(folder / TOKENIZER_FOLDER)
        )
        self._folder, self._positions = folder, description.longest or options.max_length * 1000
        self.longest = min(options.max_length, self._positions) - max(1, len(self._front) + len(self._back))
        if self.longest < 1:
            raise UserError(
                f"decoding option max-length is {options.max_length}, but the tokens {self._front + self._back} alone "
                f"take {len(self._front) + len(self._back)} of them: a larger number is needed"
            )
        self._translator = ctranslate2_format.load(folder, threads, options.precision, device)
        # As with models of our own: so many hypotheses at once fill a processor's vectors.
        self.cpu_batch = max(8, (64 if options.precision == "int8" else 128) // max(2, options.beam_size))
        self.description = f"{description.family} in CTranslate2, {options.precision}, {device}, {threads} at once"

    def _take_tag(self, folder: Path) -> None:
        """A prefix that is a tag (>>deu<<) is one token; a segmenter would split it."""
        if not is_tag(self._prefix):
            return
        check_tag(self._prefix, self._source, str(folder))
        if any(is_tag(token) for token in self._front):
            raise UserError(
                f"{folder} has {self._front[0]} in front of every source: {self._prefix} cannot be there too"
            )
        self._front.append(self._prefix)
        self._prefix = ""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts, the prefix in front, without language tokens; none for a text without words."""
        unknown = self._source_ids.get("<unk>", 0)
        rows = self._tokenizer.pieces(with_prefix(texts, self._prefix)) if texts else []
        return [
            [self._source_ids.get(piece, unknown) for piece in row] if text.strip() else []
            for text, row in zip(texts, rows, strict=True)
        ]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Texts of ids, one line each."""
        rows = [[self._target[number] for number in row] for row in ids]
        return [one_line(text) for text in self._tokenizer.texts(rows)] if rows else []

    def submit(self, sources: Sequence[Sequence[int]]) -> Callable[[], list[list[Hypothesis]]]:
        """Begin a batch. The call that comes back waits for its hypotheses, best first, for each source."""
        sampling = self._options.sampling
        longest = longest_translation(max(map(len, sources)) + 1, self._options.max_length_factor)
        waiting = self._translator.translate_batch(
            [[*self._front, *(self._source[number] for number in source), *self._back] for source in sources],
            target_prefix=[self._target_prefix] * len(sources) if self._target_prefix else None,
            beam_size=self._options.beam_size,
            num_hypotheses=self._n,
            length_penalty=self._options.normalize,
            max_input_length=0,
            max_decoding_length=min(longest + len(self._target_prefix), self._positions),
            disable_unk=not self._options.allow_unk,
            sampling_topk=sampling.top_k if sampling else 1,
            sampling_temperature=sampling.temperature if sampling else 1.0,
            return_scores=True,
            asynchronous=True,
        )
        return lambda: [self._hypotheses(handle) for handle in waiting]

    def _hypotheses(self, handle: Any) -> list[Hypothesis]:
        try:
            result = handle.result()
        except RuntimeError as error:
            raise UserError(
                f"CTranslate2 cannot translate with {self._folder}: {error} (if a sentence is too long for the model: "
                f"max-length is {self._options.max_length})"
            ) from error
        forced = len(self._target_prefix)
        return [
            Hypothesis(
                [
                    self._target_ids[piece]
                    for piece in (pieces[forced:] if pieces[:forced] == self._target_prefix else pieces)
                ],
                score,
            )
            for pieces, score in zip(result.hypotheses, result.scores, strict=True)
        ]


def load(
    folder: Path,
    options: DecodingOptions,
    n: int = 1,
    prefix: str = "",
    device: str | None = None,
    threads: int | None = None,
) -> ExternalModel:
    """Load a folder to translate with, `n` hypotheses per sentence and `prefix` in front of every source.

    By default on the GPU, or as many batches at once as there are processors. Samples come one batch after the other:
    only then are they the same every time. Raises UserError when the folder is not whole or an option cannot be done.
    """
    description = Description.read(folder)
    device = device or ("cuda" if has_gpu() else "cpu")
    if options.precision == "float16" and device == "cpu":
        raise UserError("precision float16 needs a GPU: use float32, or int8")
    threads = threads or (1 if device == "cuda" else cpu_threads())
    if options.sampling:
        threads = 1
        ctranslate2.set_random_seed(options.sampling.seed)
    return ExternalModel(folder, description, options, n, prefix, device, threads)
