"""What a measured model's process tells: its own memory, not its parent's."""

import dataclasses
import signal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from pipeline.common.errors import TransientError, UserError
from pipeline.evaluate import measure
from pipeline.evaluate.loading import Source
from pipeline.evaluate.measure import measure_model, peak_memory
from pipeline.model.decoding import decoding_options


@pytest.fixture
def source(models: dict[str, Path], tmp_path: Path) -> Source:
    vocab = [models["vocab"]]
    return Source([models["first"]], (vocab, vocab), "", decoding_options({}, beam_size=1, max_length=100), tmp_path)


def test_memory_is_that_of_a_process_of_its_own(source: Source) -> None:
    ballast = np.ones(1 << 26)  # half a GiB that this process has, and the measured one must not have
    here = peak_memory()
    assert here > ballast.nbytes
    speed, memory = measure_model(source, ["The house is small.", ""], "en", seconds=0.1)
    assert speed["words-per-second"] > 0
    assert 0 < memory["model-bytes"] < memory["peak-rss-bytes"] < here - ballast.nbytes // 2
    assert (source.temporary / "ctranslate2").is_dir()


class Deadly:
    """Kills the process that it is handed to."""

    def __reduce__(self) -> Any:
        return signal.raise_signal, (signal.SIGKILL,)


def test_a_killed_process_is_worth_a_retry_and_a_crashed_one_is_not() -> None:
    with pytest.raises(TransientError, match="memory ran out"):
        measure_model(cast(Source, Deadly()), ["The house is small."], "en")
    assert isinstance(measure._ended(-signal.SIGSEGV), UserError)


def test_what_is_wrong_in_the_process_is_said_here(source: Source) -> None:
    with pytest.raises(UserError, match=r"absent\.npz does not exist"):
        measure_model(dataclasses.replace(source, models=[Path("absent.npz")]), ["The house is small."], "en")
