"""Several models, or one, that say together what comes next."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.model.inference import InferenceModel
from pipeline.model.vocab import EOS_ID, UNK_ID


class Ensemble:
    """Models with their decoder states for one batch of sources, ids [B, S] with mask [B, S].

    `candidates` (sorted target ids [C], or None for all) are the pieces that can come; columns of log-probabilities
    stand for them, and for no piece beyond them.
    """

    def __init__(
        self,
        models: Sequence[InferenceModel],
        src_ids: Tensor,
        src_mask: Tensor,
        allow_unk: bool,
        candidates: Tensor | None,
    ) -> None:
        self._models, self._candidates, self._vocab_size = models, candidates, models[0].config.dim_vocabs[1]
        self._states = [model.start(model.encode(src_ids, src_mask), src_mask) for model in models]
        self._outputs = [model.output_layer(() if allow_unk else (UNK_ID,), candidates) for model in models]

    def step(self, chosen: Tensor | None) -> Tensor:
        """Log-probabilities [B, K, V'] of the next piece, the mean of the models', after the pieces [B, K] chosen last
        (None before the first). A translation cannot end before it has begun."""
        total: Tensor | None = None
        for model, state, output in zip(self._models, self._states, self._outputs, strict=True):
            logits = output(model.step(chosen, state)).float()
            if chosen is None:
                logits[..., EOS_ID] = -math.inf  # the lowest id has the first column among candidates, too
            log_probs = torch.log_softmax(logits, dim=-1)
            total = log_probs if total is None else total + log_probs
        assert total is not None
        return total if len(self._models) == 1 else total / len(self._models)

    def ids(self, columns: Tensor) -> Tensor:
        """The pieces that columns stand for."""
        # Columns that fill the last block are impossible, but appear where nothing else is possible either.
        if self._candidates is None:
            return columns.clamp(max=self._vocab_size - 1)
        return self._candidates[columns.clamp(max=len(self._candidates) - 1)]

    def select(self, sentences: Tensor | None, parents: Tensor | None) -> None:
        """Keep these sentences, with hypotheses that go on from these parents: see DecoderState."""
        for state in self._states:
            state.select(sentences, parents)
