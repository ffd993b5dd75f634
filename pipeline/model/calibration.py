"""Finding out how large the inputs of a model's matrix products are, for arithmetic in eight bits.

The model translates sentences. For each input of a product the largest absolute value of each sentence is noted; an
input is then given the range of their mean plus 1.1 standard deviations: a few large values are clipped, so that all
others are rounded less. The recipe is that of Mozilla's and Edinburgh's students.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.common.errors import UserError
from pipeline.model import parity
from pipeline.model.formats.bergamot import output_matrix
from pipeline.model.formats.marian_binary import LARGEST
from pipeline.model.transformer import Transformer

DEVIATIONS = 1.1


class _ObservedTransformer(Transformer):
    """A copy of a model that notes the largest absolute input of every product, sentence by sentence."""

    def __init__(self, model: Transformer) -> None:
        super().__init__(model.config)
        self.load_state_dict(model.state_dict())
        self.largest: dict[str, list[float]] = defaultdict(list)
        self._src_mask = self._trg_mask = torch.empty(0)

    def observe(self, src: Tensor, src_mask: Tensor, trg: Tensor, trg_mask: Tensor) -> None:
        """Compute a batch: ids [B, S] and [B, T] with masks (True: real)."""
        self._src_mask, self._trg_mask = src_mask, trg_mask
        self(src, src_mask, trg)

    def linear(self, x: Tensor, name: str, suffixes: tuple[str, ...]) -> Tensor:
        reads_source = name.startswith("encoder_") or suffixes == ("k", "v")
        for suffix in suffixes:
            self._note(f"{name}_W{suffix}", x, self._src_mask if reads_source else self._trg_mask)
        return super().linear(x, name, suffixes)

    def logits(self, states: Tensor) -> Tensor:
        self._note(output_matrix(self.config), states, self._trg_mask)
        return super().logits(states)

    def _note(self, name: str, x: Tensor, mask: Tensor) -> None:
        self.largest[name] += x.abs().amax(-1).masked_fill(~mask, 0).amax(-1).tolist()


@torch.no_grad()
def calibrate(model: Transformer, sources: parity.Ids) -> dict[str, float]:
    """Alphas (127 divided by an input's range) by the names of matrices, of the model's own greedy translations of
    sources (ids without the end of sentence). The same sources give the same alphas.

    Raises UserError when there are no sources.
    """
    if not sources:
        raise UserError("there are no sentences to calibrate the model on")
    targets = parity.TorchEngine(model).translate(sources, 1)
    observed = _ObservedTransformer(model).eval()
    for places in parity.batches(sources, targets):
        observed.observe(
            *parity.padded([sources[place] for place in places]), *parity.padded([targets[place] for place in places])
        )
    return {name: _alpha(largest) for name, largest in observed.largest.items()}


def _alpha(largest: Sequence[float]) -> float:
    deviation, mean = torch.std_mean(torch.tensor(largest, dtype=torch.float64), correction=0)
    limit = float(mean + DEVIATIONS * deviation)
    return LARGEST / limit if limit else 1.0
