"""Judging a model during training by real translations of the devset.

A model in the arithmetic of an 8-bit engine is judged in it: products of whole numbers, and float32 elsewhere.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import sacrebleu
import torch
from torch import Tensor

from pipeline.common.corpus import read_parallel
from pipeline.common.errors import UserError
from pipeline.common.progress import Progress
from pipeline.model.inference import InferenceModel
from pipeline.model.quantization import QuantizedTransformer
from pipeline.model.search import beam_search
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import Vocab
from pipeline.train.compute import Compute
from pipeline.train.distributed import Processes
from pipeline.train.loss import token_cross_entropy
from pipeline.train.options import TrainingOptions
from pipeline.train.ragged import Ragged

_ALONE = Processes()
TRANSLATION_METRICS = ("chrf", "bleu-detok")
LOWER_IS_BETTER = ("ce-mean-words", "perplexity")

# Written without spaces: BLEU counts characters there, except in Chinese, for which sacreBLEU has a tokenizer.
_CHARACTER_LANGUAGES = ("ja", "th", "lo", "km", "my")


class Validator:
    """The devset, encoded once, and the metrics to compute on it."""

    def __init__(
        self,
        devset: tuple[Path, Path],
        vocabs: tuple[Vocab, Vocab],
        trg_language: str,
        options: TrainingOptions,
        metrics: Sequence[str],
        processes: Processes = _ALONE,
        interruption_point: Callable[[], None] = lambda: None,
    ) -> None:
        """Several processes share the batches out. `interruption_point` is called between batches and may raise.
        Pairs of which a side is longer than valid-max-length pieces are left out; `left_out` counts them. Raises
        UserError when no pair is left.
        """
        self.options, self.metrics, self.trg_vocab, self.processes = options, metrics, vocabs[1], processes
        self.interruption_point = interruption_point
        pairs = list(read_parallel(*devset))
        if not pairs:
            raise UserError(f"the devset is empty: {devset[0]} has no lines")
        src = vocabs[0].encode([pair[0] for pair in pairs])
        trg = vocabs[1].encode([pair[1] for pair in pairs])
        limit = options.valid_max_length + 1
        kept = [index for index in range(len(pairs)) if max(len(src[index]), len(trg[index])) <= limit]
        self.left_out = len(pairs) - len(kept)
        if not kept:
            raise UserError(f"every pair of the devset is longer than valid-max-length {options.valid_max_length}")
        kept.sort(key=lambda index: (len(src[index]), len(trg[index])))
        self.references = [pairs[index][1] for index in kept]
        self.src = Ragged.of([src[index] for index in kept])
        self.trg = Ragged.of([trg[index] for index in kept])
        tokenize = {"zh": "zh"}.get(trg_language[:2], "char" if trg_language[:2] in _CHARACTER_LANGUAGES else "13a")
        self.scorers = {"chrf": sacrebleu.CHRF(), "bleu-detok": sacrebleu.BLEU(tokenize=tokenize)}

    def signatures(self) -> dict[str, str]:
        """sacreBLEU's signature of each translation metric, known after the first validation."""
        return {name: str(self.scorers[name].get_signature()) for name in self.metrics if name in TRANSLATION_METRICS}

    @torch.no_grad()
    def validate(self, model: Transformer, compute: Compute) -> dict[str, float]:
        """The metrics of a model, in the order asked for: chrF and BLEU out of 100; ce-mean-words is the mean
        cross-entropy of a target token, ends of sentences included, in nats; perplexity is its exponential.
        """
        training = model.training
        model.eval()
        try:
            values: dict[str, float] = {}
            if any(name in LOWER_IS_BETTER for name in self.metrics):
                cross_entropy = self._cross_entropy(model, compute)
                values = {"ce-mean-words": cross_entropy, "perplexity": math.exp(min(cross_entropy, 700.0))}
            if any(name in TRANSLATION_METRICS for name in self.metrics):
                translations = self._translate(model, compute)
                scorers = [(name, scorer) for name, scorer in self.scorers.items() if name in self.metrics]
                if self.processes.first:
                    scored = [scorer.corpus_score(translations, [self.references]).score for _, scorer in scorers]
                else:
                    scored = []
                values |= zip([name for name, _ in scorers], self.processes.from_first(scored), strict=True)
            return {name: values[name] for name in self.metrics}
        finally:
            model.train(training)

    def _cross_entropy(self, model: Transformer, compute: Compute) -> float:
        total = 0.0
        for rows in self._batches():
            (src, src_mask), (trg, trg_mask) = (
                self._tensors(self.src, rows, compute),
                self._tensors(self.trg, rows, compute),
            )
            with contextlib.nullcontext() if isinstance(model, QuantizedTransformer) else compute.autocast():
                states, _ = model.decode(trg, model.encode(src, src_mask), src_mask)
                logits = model.logits(states[trg_mask])
            total += float(token_cross_entropy(logits, trg[trg_mask]))
        return self.processes.sum([total])[0] / len(self.trg.flat)

    def _translate(self, model: Transformer, compute: Compute) -> list[str]:
        progress = Progress("validation", "sentences", len(self.references))
        own: list[list[str]] = []
        ready = InferenceModel(model, compute.dtype or torch.float32)
        for rows in self._batches():
            src, src_mask = self._tensors(self.src, rows, compute)
            found = beam_search(
                [ready], src, src_mask, beam_size=self.options.beam_size, normalize=self.options.normalize
            )
            own.append(self.trg_vocab.decode([hypotheses[0].ids for hypotheses in found]))
            progress.add(len(rows) * self.processes.count)
        by_process = self.processes.gather(own)
        batches = chain.from_iterable(zip_longest(*by_process, fillvalue=[]))
        return list(chain.from_iterable(batches))

    def _batches(self) -> list[list[int]]:
        """The batches of this process: every so many-th."""
        size, pairs = self.options.valid_mini_batch, len(self.references)
        batches = [list(range(start, min(start + size, pairs))) for start in range(0, pairs, size)]
        return batches[self.processes.rank :: self.processes.count]

    def _tensors(self, side: Ragged, rows: list[int], compute: Compute) -> tuple[Tensor, Tensor]:
        self.interruption_point()
        ids, mask = map(torch.from_numpy, side.padded(np.array(rows)))
        return ids.to(compute.device), mask.to(compute.device)


def improved(metric: str, value: float, best: float | None) -> bool:
    """Whether a value of a metric is better than the best so far."""
    return best is None or (value < best if metric in LOWER_IS_BETTER else value > best)
