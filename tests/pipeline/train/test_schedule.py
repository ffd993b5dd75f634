import math

import pytest

from pipeline.train.schedule import Amount, Progress, learning_rate

UPDATES = Amount(100, "updates")


def test_warmup_is_linear_from_nothing() -> None:
    rates = [learning_rate(2.0, UPDATES, (), Progress(updates=n)) for n in (0, 1, 50, 100, 1000)]
    assert rates == pytest.approx([0.0, 0.02, 1.0, 2.0, 2.0])


def test_decay_starts_at_its_own_length_by_default() -> None:
    rates = [learning_rate(2.0, Amount(0, "updates"), (UPDATES,), Progress(updates=n)) for n in (0, 100, 400)]
    assert rates == pytest.approx([2.0, 2.0, 2.0 * math.sqrt(100 / 400)])


def test_decay_can_start_elsewhere_and_is_one_there() -> None:
    decay = (UPDATES, Amount(300, "updates"))
    rates = [learning_rate(1.0, Amount(0, "updates"), decay, Progress(updates=n)) for n in (299, 300, 600)]
    assert rates == pytest.approx([1.0, 1.0, math.sqrt(100 / (600 - 300 + 100))])


def test_warmup_and_decay_multiply_in_any_unit() -> None:
    progress = Progress(updates=1, epochs=4.0, tokens=50)
    rate = learning_rate(1.0, Amount(100, "tokens"), (Amount(1, "epochs"),), progress)
    assert rate == pytest.approx(0.5 * math.sqrt(1 / 4))


def test_periods_and_limits() -> None:
    progress = Progress(updates=250, epochs=2.999)
    assert progress.periods(UPDATES) == 2
    assert progress.periods(Amount(0, "updates")) == 0
    assert progress.reached(Amount(250, "updates"))
    assert not progress.reached(Amount(3, "epochs"))
    assert not progress.reached(Amount(0, "updates"))
