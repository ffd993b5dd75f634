"""The operations that an update counts: against those that torch counts while it computes."""

from typing import Any

import pytest
import torch
from tiny_model import tiny_model
from torch.utils.flop_counter import FlopCounterMode

from pipeline.train.batches import Batch, PairSizes
from pipeline.train.compute import Compute
from pipeline.train.report import Meter, UpdateReport
from pipeline.train.utilisation import peak_operations, update_operations

SENTENCES, SOURCE, TARGET = 3, 7, 5
SIZES = PairSizes(
    target_tokens=SENTENCES * TARGET,
    real=SENTENCES * (SOURCE + TARGET),
    padded=SENTENCES * (SOURCE + TARGET),
    src_src=SENTENCES * SOURCE**2,
    src_trg=SENTENCES * SOURCE * TARGET,
    trg_trg=SENTENCES * TARGET**2,
)


@pytest.mark.parametrize("changes", [{}, {"transformer_decoder_autoreg": "rnn", "dec_cell": "ssru"}, {"dec_depth": 3}])
def test_an_update_counts_what_torch_computes(changes: dict[str, Any]) -> None:
    model = tiny_model(**changes).train()
    src, trg = torch.full((SENTENCES, SOURCE), 5), torch.full((SENTENCES, TARGET), 6)
    batch = Batch(src, torch.ones_like(src, dtype=torch.bool), trg, torch.ones_like(trg, dtype=torch.bool), None)
    with FlopCounterMode(display=False) as counter:
        logits, _ = model(batch.src, batch.src_mask, batch.trg)
        logits.sum().backward()
    assert update_operations(model.config, SIZES) == counter.get_total_flops()


def test_the_peak_is_about_what_a_product_reaches() -> None:
    compute = Compute(torch.device("cpu"), torch.get_num_threads())
    state = torch.get_rng_state()
    assert 1e9 < peak_operations(compute) < 1e14
    assert torch.equal(torch.get_rng_state(), state)


def test_figures_are_means_over_the_updates_since_the_last_reset() -> None:
    meter = Meter(tiny_model().config, peak=1e9)
    half = PairSizes(target_tokens=10, real=30, padded=40)
    meter.add(UpdateReport(half, {"cost": 50.0, "word-kd": 5.0}, gradient_norm=1.0, seconds=1.0, waited=0.5))
    meter.add(UpdateReport(half, {"cost": 30.0, "word-kd": 1.0}, gradient_norm=3.0, seconds=3.0, waited=0.5))
    figures = meter.figures()
    assert figures["train-cost"] == 4.0 and figures["word-kd"] == pytest.approx(0.3)
    assert figures["words-per-second"] == 5.0 and figures["gradient-norm"] == 2.0
    assert figures["padding"] == 0.25 and figures["waiting"] == 0.25
    assert figures["mfu"] == pytest.approx(update_operations(meter.config, half + half) / 4.0 / 1e9)
    meter.reset()
    assert meter.figures()["words-per-second"] == 0.0
    assert "mfu" not in Meter(meter.config, peak=0.0).figures()
