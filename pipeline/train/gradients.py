"""The gradients of an update."""

import torch

from pipeline.model.transformer import Transformer
from pipeline.train.compute import Compute
from pipeline.train.data import Update
from pipeline.train.loss import guided_alignment_cost, token_cross_entropy
from pipeline.train.options import TrainingOptions


def accumulate_gradients(
    model: Transformer, update: Update, options: TrainingOptions, compute: Compute
) -> tuple[float, float]:
    """Add the gradients of an update to those of the parameters, micro-batch by micro-batch.

    They are those of the mean over all target tokens of the update, however many micro-batches it has. Returns the
    cost and the guided-alignment cost, summed over target tokens.
    """
    tokens = update.sizes.target_tokens
    cost = torch.zeros((), device=compute.device)
    alignment_cost = torch.zeros((), device=compute.device)
    for batch in update.batches:
        batch = batch.to(compute.device)
        with compute.autocast():
            memory = model.encode(batch.src, batch.src_mask)
            states, attention = model.decode(batch.trg, memory, batch.src_mask, alignment=batch.alignment is not None)
            logits = model.logits(states[batch.trg_mask])  # [real tokens, V]: no product and no loss for padding
        loss = token_cross_entropy(logits, batch.trg[batch.trg_mask], options.label_smoothing)
        cost += loss.detach()
        if attention is not None and batch.alignment is not None:
            guided = guided_alignment_cost(
                attention, batch.alignment, batch.src_mask, batch.trg_mask, options.guided_alignment_cost
            )
            alignment_cost += guided.detach()
            loss = loss + options.guided_alignment_weight * guided
        torch.autograd.backward(loss / tokens)
    return float(cost), float(alignment_cost)
