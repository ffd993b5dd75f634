"""The gradients of an update: the costs of its tokens, weighted and added up, and their derivatives."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.model.packed import PackedTransformer
from pipeline.model.quantization import PackedQuantizedTransformer, QuantizedTransformer
from pipeline.model.transformer import Transformer
from pipeline.train.batches import Batch
from pipeline.train.compute import Compute
from pipeline.train.distiller import Distiller
from pipeline.train.loss import guided_alignment_cost, token_cross_entropy
from pipeline.train.options import TrainingOptions
from pipeline.train.teachers import TeacherStates

# Logits that are held at once: 64 MB in float32 on a processor, where more is not faster; a GPU is kept busier by four
# times as many. docs/performance.md has the measurements.
_CHUNK_LOGITS = {"cpu": 1 << 24, "cuda": 1 << 26}


class Objective:
    """What an update minimises: the mean over its target tokens of the weighted sum of the costs of `weights`.

    The logits of all tokens of an update would be by far its largest tensor (16,000 tokens over 32,000 pieces: 2 GB,
    several times over with what a softmax and its derivative need). So the output layer is done in chunks of tokens:
    logits, costs and their derivatives down to the decoder's states, one chunk after the other; then those derivatives
    go through the rest of the model at once. The result is the same.
    """

    def __init__(
        self,
        model: Transformer,
        options: TrainingOptions,
        compute: Compute,
        distiller: Distiller | None = None,
        chunk: int | None = None,
    ) -> None:
        """`chunk` is the number of tokens of a chunk; by default as many as 2^24 logits (on a GPU 2^26) are of."""
        self.model, self.options, self.compute, self.distiller = model, options, compute, distiller
        logits = _CHUNK_LOGITS.get(compute.device.type, _CHUNK_LOGITS["cpu"])
        self.chunk = chunk or max(1, logits // model.config.dim_vocabs[1])
        self.encode, self.decode = model.encode, model.decode
        if options.compile:
            self.encode = torch.compile(model.encode, dynamic=True)
            self.decode = torch.compile(model.decode, dynamic=True)
        # On a processor derivatives are written by hand, unless hidden states are wanted or something it cannot do.
        by_hand = compute.device.type == "cpu" and not options.compile and PackedTransformer.can_train(model.config)
        by_hand = by_hand and (distiller is None or not distiller.pairs)
        self.packed = _pack(model, compute.dtype or torch.float32) if by_hand else None
        self.weights = {"cost": distiller.distillation.nll_weight if distiller is not None else 1.0}
        if options.guided_alignment:
            self.weights["alignment-cost"] = options.guided_alignment_weight
        if distiller is not None:
            self.weights |= distiller.weights

    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained: the model's parameters that are not frozen, and the distiller's."""
        modules: list[nn.Module] = [self.model, *([self.distiller] if self.distiller is not None else [])]
        return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]

    def backward(self, batches: Sequence[Batch], total_tokens: int, scale: float | Tensor = 1.0) -> dict[str, float]:
        """Add the gradients of an update, micro-batch by micro-batch, to those of the parameters.

        `total_tokens` are the target tokens of the whole update, those of other processes included. The gradients are
        multiplied by `scale`, the costs are not. Returns the costs by the names of `weights`, summed over the tokens of
        these batches (an encoder's hidden states: over source tokens), not weighted.
        """
        costs = {name: torch.zeros((), device=self.compute.device) for name in self.weights}
        for batch in batches:
            self._add(batch.to(self.compute.device), scale / total_tokens, costs)
        return dict(zip(costs, torch.stack(list(costs.values())).tolist(), strict=True))

    def _add(self, batch: Batch, scale: float | Tensor, costs: dict[str, Tensor]) -> None:
        distiller, wants_alignment = self.distiller, self.options.guided_alignment and batch.alignment is not None
        lesson = distiller.teach(batch) if distiller is not None else None
        hidden: dict[str, list[Tensor]] = {side: [] for side in (distiller.pairs if distiller is not None else ())}
        if self.packed is not None:
            states, attention = self.packed.states(
                batch.src, batch.src_mask, batch.trg, batch.trg_mask, wants_alignment
            )
        else:
            with self.compute.autocast():
                memory = self.encode(batch.src, batch.src_mask, hidden.get("encoder"))
                states, attention = self.decode(
                    batch.trg, memory, batch.src_mask, wants_alignment, hidden.get("decoder")
                )
                states = states[batch.trg_mask]  # [N, d]: no product and no cost for padding

        others: dict[str, Tensor] = {}
        if attention is not None and batch.alignment is not None:
            others["alignment-cost"] = guided_alignment_cost(
                attention, batch.alignment, batch.src_mask, batch.trg_mask, self.options.guided_alignment_cost
            )
        if distiller is not None and lesson is not None:
            others |= distiller.hidden_costs(hidden, lesson, batch)
        for name, cost in others.items():
            costs[name] += cost.detach()

        gradient = self._through_output(states.detach(), batch, lesson, scale, costs)
        losses = [cost * (self.weights[name] * scale) for name, cost in others.items() if cost.requires_grad]
        torch.autograd.backward([states, *losses], [gradient, *(None for _ in losses)])

    def _through_output(
        self,
        states: Tensor,
        batch: Batch,
        lesson: TeacherStates | None,
        scale: float | Tensor,
        costs: dict[str, Tensor],
    ) -> Tensor:
        """Add the costs of all tokens, and their derivatives to the output layer's; returns those of the states."""
        targets = batch.trg[batch.trg_mask]
        gradients = []
        for start in range(0, len(states), self.chunk):
            part = slice(start, start + self.chunk)
            chunk = states[part].requires_grad_()
            if self.packed is not None and self.distiller is None:
                cost = self.packed.cost(chunk, targets[part], self.options.label_smoothing)
            else:
                with self.compute.autocast():
                    logits = self.model.logits(chunk)
                cost = token_cross_entropy(logits, targets[part], self.options.label_smoothing)
            costs["cost"] += cost.detach()
            loss = self.weights["cost"] * cost
            if self.distiller is not None and "word-kd" in self.weights:
                distance = self.distiller.word_cost(logits, lesson, batch, part)
                costs["word-kd"] += distance.detach()
                loss = loss + self.weights["word-kd"] * distance
            torch.autograd.backward(loss * scale)
            assert chunk.grad is not None
            gradients.append(chunk.grad)
        return torch.cat(gradients)


def _pack(model: Transformer, dtype: torch.dtype) -> PackedTransformer:
    if isinstance(model, QuantizedTransformer):
        return PackedQuantizedTransformer(model, dtype)
    return PackedTransformer(model, dtype)
