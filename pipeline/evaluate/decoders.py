"""Models that translate: CTranslate2 for a single one, the torch search for what CTranslate2 does not do."""

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch

from pipeline.common.errors import UserError
from pipeline.common.progress import Progress
from pipeline.evaluate.speed import BATCH_SIZE, length_batches
from pipeline.model import external
from pipeline.model.decoding import DecodingOptions
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.formats import npz
from pipeline.model.inference import InferenceModel
from pipeline.model.search import beam_search, longest_translation
from pipeline.model.shortlist import Candidates, Shortlist
from pipeline.model.vocab import Vocab, with_prefix

logger = logging.getLogger(__name__)


class Decoder(Protocol):
    """Translates batches of ids."""

    engine: str  # for people: "ctranslate2 int8"
    batches_at_once: int  # calls of `decode` that may run beside each other, each on a thread of its own

    def decode(self, sources: Sequence[list[int]]) -> list[list[int]]:
        """Target ids of source ids, both without the end of sentence. No source is empty."""


class CTranslate2Decoder:
    """A model directory of CTranslate2."""

    def __init__(
        self,
        directory: Path,
        vocabs: tuple[Vocab, Vocab],
        options: DecodingOptions,
        threads: int,
        use_vmap: bool = False,
    ) -> None:
        """With `use_vmap` batches are translated among what the directory's vocabulary map allows.

        Raises UserError when the directory is no model, or has other vocabularies.
        """
        self._translator: Any = ctranslate2_format.load(directory, threads)
        _check_vocabularies(directory, vocabs)
        self.batches_at_once = threads
        self._options, self._use_vmap = options, use_vmap
        self._source_pieces = vocabs[0].all_pieces
        self._target_ids = {piece: number for number, piece in enumerate(vocabs[1].all_pieces)}
        compute_type = str(self._translator.compute_type)
        self.engine = f"ctranslate2 {'int8' if compute_type.startswith('int8') else compute_type}"

    def decode(self, sources: Sequence[list[int]]) -> list[list[int]]:
        longest = longest_translation(max(map(len, sources)) + 1, self._options.max_length_factor)
        results = self._translator.translate_batch(
            [[self._source_pieces[number] for number in source] for source in sources],
            beam_size=self._options.beam_size,
            length_penalty=self._options.normalize,
            max_input_length=0,
            max_decoding_length=longest,
            disable_unk=not self._options.allow_unk,
            use_vmap=self._use_vmap,
        )
        return [[self._target_ids[piece] for piece in result.hypotheses[0]] for result in results]


class ExternalDecoder:
    """A folder of another maker's model, on the processor."""

    def __init__(self, folder: Path, options: DecodingOptions, threads: int, source_prefix: str) -> None:
        """Raises UserError when the folder is not whole, or an option cannot be done."""
        if options.precision == "float16":
            logger.info("models are evaluated on the processor, which does not compute in float16: float32 instead")
            options = dataclasses.replace(options, precision="float32")
        self.model = external.load(folder, options, 1, source_prefix, "cpu", threads)
        self.batches_at_once = 1 if options.sampling else threads
        self.engine = f"ctranslate2 {options.precision}"

    def decode(self, sources: Sequence[list[int]]) -> list[list[int]]:
        return [hypotheses[0].ids for hypotheses in self.model.submit(sources)()]


class TorchDecoder:
    """One model.npz, or several that search together, in torch, with as many threads as torch was told to use."""

    batches_at_once = 1

    def __init__(
        self,
        models: Sequence[Path],
        vocabs: tuple[Vocab, Vocab],
        options: DecodingOptions,
        shortlist: Shortlist | None = None,
    ) -> None:
        """Raises UserError when a model has vocabularies of other sizes, or the shortlist is of others."""
        for path in models:
            wanted, found = npz.load_config(path).dim_vocabs, (len(vocabs[0]), len(vocabs[1]))
            if wanted != found:
                raise UserError(
                    f"{path} has vocabularies of {wanted[0]:,} and {wanted[1]:,} pieces, but those given have "
                    f"{found[0]:,} and {found[1]:,}: give the ones that the model was trained with"
                )
        self._models = [InferenceModel(npz.load(path)) for path in models]
        self._options = options
        self._candidates = Candidates(shortlist, vocabs) if shortlist else None
        self.engine = "torch ensemble" if len(models) > 1 else "torch"

    @torch.inference_mode()
    def decode(self, sources: Sequence[list[int]]) -> list[list[int]]:
        rows = [torch.tensor([*source, Vocab.eos_id]) for source in sources]
        src_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        src_mask = torch.arange(src_ids.shape[1]) < lengths[:, None]
        found = beam_search(
            self._models,
            src_ids,
            src_mask,
            beam_size=self._options.beam_size,
            normalize=self._options.normalize,
            max_length_factor=self._options.max_length_factor,
            allow_unk=self._options.allow_unk,
            candidates=self._candidates.of(sources) if self._candidates else None,
            sampling=self._options.sampling,
        )
        return [hypotheses[0].ids for hypotheses in found]


class Translator:
    """Text in, text out."""

    def __init__(
        self,
        decoder: Decoder,
        encode: Callable[[Sequence[str]], list[list[int]]],
        decode: Callable[[Sequence[Sequence[int]]], list[str]],
        longest: int,
    ) -> None:
        """`encode` and `decode` make ids of texts and texts of ids; sources are cut after `longest` ids."""
        self.decoder, self.longest = decoder, longest
        self._encode, self._decode = encode, decode

    @classmethod
    def with_vocabs(
        cls, decoder: Decoder, vocabs: tuple[Vocab, Vocab], options: DecodingOptions, source_prefix: str = ""
    ) -> "Translator":
        """For models that are translated with a vocabulary on each side."""

        def encode(texts: Sequence[str]) -> list[list[int]]:
            return vocabs[0].encode(with_prefix(texts, source_prefix), add_eos=False)

        return cls(decoder, encode, vocabs[1].decode, options.max_length)

    def translate(self, sentences: Sequence[str]) -> list[str]:
        """Translate a batch. What has no pieces (an empty line) has an empty translation."""
        ids = [source[: self.longest] for source in self._encode(sentences)]
        filled = [index for index, source in enumerate(ids) if source]
        translations = [""] * len(ids)
        if filled:
            decoded = self.decoder.decode([ids[index] for index in filled])
            for index, text in zip(filled, self._decode(decoded), strict=True):
                translations[index] = text
        return translations

    def translate_all(self, sentences: Sequence[str]) -> list[str]:
        """Translate a test set in batches of sentences of similar length."""
        batches = length_batches(sentences, BATCH_SIZE)
        translations = [""] * len(sentences)
        progress = Progress("translating", "sentences", total=len(sentences))
        with ThreadPoolExecutor(self.decoder.batches_at_once) as pool:
            texts = [[sentences[index] for index in batch] for batch in batches]
            for batch, translated in zip(batches, pool.map(self.translate, texts), strict=True):
                for index, text in zip(batch, translated, strict=True):
                    translations[index] = text
                progress.add(len(batch))
        progress.finish()
        return translations

    def count_cut(self, sentences: Sequence[str]) -> int:
        """How many sources have more than max-length pieces, so that their ends are not translated."""
        cut = sum(len(source) > self.longest for source in self._encode(sentences))
        if cut:
            longest = f"{self.longest:,}"
            logger.warning(f"{cut:,} sources have more than {longest} pieces: only the first {longest} are translated")
        return cut


def _check_vocabularies(directory: Path, vocabs: tuple[Vocab, Vocab]) -> None:
    """Other pieces than the model's would be translated as unknown ones, without any error."""
    for side, vocab in zip(("source", "target"), vocabs, strict=True):
        shared = directory / "shared_vocabulary.json"
        path = shared if shared.exists() else directory / f"{side}_vocabulary.json"
        if json.loads(path.read_text(encoding="utf-8")) != vocab.all_pieces:
            raise UserError(
                f"{path} holds other pieces than the {side} vocabulary given: give the one the model was trained with"
            )
