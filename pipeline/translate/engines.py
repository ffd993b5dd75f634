"""What translates a batch: CTranslate2 for one model, ours or of another maker; the torch search for what CTranslate2
does not do, which is an ensemble, a recurrent decoder, and samples that come out the same every time."""

import dataclasses
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from pipeline.common.errors import UserError
from pipeline.model import external
from pipeline.model.decoding import DecodingOptions, Sampling
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.formats import npz, vocabulary_map
from pipeline.model.hardware import cpu_threads, has_gpu
from pipeline.model.inference import InferenceModel
from pipeline.model.search import Hypothesis, beam_search, longest_translation
from pipeline.model.shortlist import Candidates, Shortlist, unfit_for_others
from pipeline.model.vocab import EOS_ID, Vocab, check_tag, load_same, with_prefix

logger = logging.getLogger(__name__)

Batch = Sequence[Sequence[int]]
Result = Callable[[], list[list[Hypothesis]]]


class Engine(Protocol):
    """Translates batches of ids (without the end of sentence, at least one each)."""

    description: str  # for people
    cpu_batch: int  # sentences of a batch on a processor

    def submit(self, sources: Batch) -> Result:
        """Begin a batch. The call that comes back waits for its hypotheses, best first, for each source."""


@dataclass(frozen=True)
class Loaded:
    """An engine and how texts become its ids and back. Sources of more than `longest` ids are to be cut."""

    engine: Engine
    encode: Callable[[Sequence[str]], list[list[int]]]
    decode: Callable[[Sequence[Sequence[int]]], list[str]]
    longest: int


def load(
    models: Sequence[Path],
    vocab_paths: tuple[Sequence[Path], Sequence[Path]],
    source_prefix: str,
    options: DecodingOptions,
    n: int,
    shortlist: Shortlist | None = None,
) -> Loaded:
    """Load a model.npz, several that vote, or a folder of another maker's model, for `n` hypotheses per sentence. With
    a shortlist each batch is translated among its candidates.

    The vocabularies of source and target are one each, or one for each model of an ensemble. Raises UserError when
    files do not fit each other, and when the machine cannot compute in the precision asked for.
    """
    if external.check_models(models, vocab_paths):
        if shortlist:
            raise unfit_for_others(models[0])
        model = external.load(models[0], options, n, source_prefix)
        return Loaded(model, model.encode, model.decode, model.longest)
    vocabs = load_same(vocab_paths[0]), load_same(vocab_paths[1])
    check_tag(source_prefix, vocabs[0].all_pieces, str(vocab_paths[0][0]))
    engine = make_engine(models, (vocab_paths[0][0], vocab_paths[1][0]), vocabs, options, n, shortlist)

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return vocabs[0].encode(with_prefix(texts, source_prefix), add_eos=False)

    return Loaded(engine, encode, vocabs[1].decode, options.max_length - 1)


def make_engine(
    models: Sequence[Path],
    vocab_paths: tuple[Path, Path],
    vocabs: tuple[Vocab, Vocab],
    options: DecodingOptions,
    n: int,
    shortlist: Shortlist | None = None,
) -> Engine:
    """The engine for one model.npz or for several, giving `n` hypotheses per sentence. Raises UserError when the
    machine cannot compute in the precision asked for, or a model does not fit the vocabularies."""
    if options.precision == "float16" and not has_gpu():
        raise UserError("precision float16 needs a GPU, and there is none here: use float32, or int8 for one model")
    if len(models) == 1:
        if npz.load_config(models[0]).is_recurrent:
            logger.info("CTranslate2 has no recurrent decoder (SSRU): the torch search translates instead")
        elif options.sampling:
            logger.info("the torch search translates: its samples are the same whenever they are drawn")
        else:
            return CTranslate2Engine(models[0], vocab_paths, vocabs, options, n, shortlist)
    return TorchEngine(models, vocabs, options, n, shortlist)


class CTranslate2Engine:
    """One model, converted when the engine is made; as many batches at once as there are processors."""

    def __init__(
        self,
        model: Path,
        vocab_paths: tuple[Path, Path],
        vocabs: tuple[Vocab, Vocab],
        options: DecodingOptions,
        n: int,
        shortlist: Shortlist | None = None,
    ) -> None:
        threads, device = (1, "cuda") if has_gpu() else (cpu_threads(), "cpu")
        with tempfile.TemporaryDirectory(prefix="ctranslate2-") as folder:
            directory = Path(folder) / "model"
            ctranslate2_format.save(npz.load(model), directory, vocab_paths, options.precision)
            if shortlist:
                path = directory / vocabulary_map.NAME
                vocabulary_map.write(shortlist.path, vocabs, shortlist.first, shortlist.best, path)
            self._translator = ctranslate2_format.load(directory, threads, device=device)
        # Measured (benchmarks/decode.py): so many hypotheses at once fill a processor's vectors; more fall out of its
        # caches.
        most = 64 if options.precision == "int8" else 128
        self.cpu_batch = max(8, most // max(2, options.beam_size))
        self._options, self._n, self._use_vmap = options, n, shortlist is not None
        self._source_pieces = vocabs[0].all_pieces
        self._target_ids = {piece: number for number, piece in enumerate(vocabs[1].all_pieces)}
        self.description = f"CTranslate2, {options.precision}, {device}, {threads} at once"

    def submit(self, sources: Batch) -> Result:
        longest = max(len(source) for source in sources) + 1
        waiting = self._translator.translate_batch(
            [[self._source_pieces[number] for number in source] for source in sources],
            beam_size=self._options.beam_size,
            num_hypotheses=self._n,
            length_penalty=self._options.normalize,
            max_input_length=0,
            max_decoding_length=longest_translation(longest, self._options.max_length_factor),
            disable_unk=not self._options.allow_unk,
            use_vmap=self._use_vmap,
            return_scores=True,
            asynchronous=True,
        )
        return lambda: [self._hypotheses(handle.result()) for handle in waiting]

    def _hypotheses(self, result: object) -> list[Hypothesis]:
        pairs = zip(result.hypotheses, result.scores, strict=True)  # type: ignore[attr-defined]
        return [Hypothesis([self._target_ids[piece] for piece in pieces], score) for pieces, score in pairs]


class TorchEngine:
    """One model, or several that vote, in torch."""

    cpu_batch = 32

    def __init__(
        self,
        models: Sequence[Path],
        vocabs: tuple[Vocab, Vocab],
        options: DecodingOptions,
        n: int,
        shortlist: Shortlist | None = None,
    ) -> None:
        if options.precision == "int8":
            raise UserError(
                "precision int8 is for one model that CTranslate2 can translate with: an ensemble, a recurrent decoder "
                "(SSRU) and sampling compute in float32, or float16 on a GPU"
            )
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        loaded = [npz.load(path).to(self._device) for path in models]
        for path, model in zip(models, loaded, strict=True):
            if model.config.dim_vocabs != (len(vocabs[0]), len(vocabs[1])):
                raise UserError(
                    f"{path} was trained with vocabularies of {list(model.config.dim_vocabs)} pieces, but the ones "
                    f"given have {[len(vocabs[0]), len(vocabs[1])]}"
                )
        half = options.precision == "float16"
        self._models = [InferenceModel(model, torch.float16 if half else torch.float32) for model in loaded]
        self._candidates = Candidates(shortlist, vocabs) if shortlist else None
        torch.set_num_threads(cpu_threads())
        self._options, self._n, self._batches = options, n, 0
        count = "one model" if len(models) == 1 else f"{len(models)} models"
        self.description = f"torch, {options.precision}, {self._device.type}, {count}"

    def submit(self, sources: Batch) -> Result:
        return lambda: self._translate(sources)

    def _translate(self, sources: Batch) -> list[list[Hypothesis]]:
        rows = [torch.tensor([*source, EOS_ID]) for source in sources]
        src_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        src_mask = torch.arange(src_ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        return beam_search(
            self._models,
            src_ids.to(self._device),
            src_mask.to(self._device),
            self._options.beam_size,
            self._options.normalize,
            self._options.max_length_factor,
            n_best=self._n,
            allow_unk=self._options.allow_unk,
            candidates=self._candidates.of(sources).to(self._device) if self._candidates else None,
            sampling=self._sampling(),
        )

    def _sampling(self) -> Sampling | None:
        """Each batch has a seed of its own, or the same sentence would get the same translation in all of them."""
        sampling = self._options.sampling
        if sampling is None:
            return None
        self._batches += 1
        return dataclasses.replace(sampling, seed=sampling.seed + self._batches)
