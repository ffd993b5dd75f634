import itertools
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from pipeline.common.augment.augmenter import DEFAULTS, Augmenter
from pipeline.common.errors import TransientError, UserError
from pipeline.train.encoding import EncodedRows, Encoder
from pipeline.train.workers import EncodingWorkers, Task, choose_workers

from .conftest import Files, make_pairs


@pytest.fixture
def encoder(files: Files) -> Encoder:
    processors = tuple(sentencepiece.SentencePieceProcessor(model_file=str(vocab)) for vocab in files.vocabs)
    return Encoder(processors, (0.3, 0.3), augmenter=Augmenter(DEFAULTS, ("en", "de")))  # type: ignore[arg-type]


def tasks(count: int) -> list[Task]:
    return [(make_pairs(20, number), (1, number)) for number in range(count)]  # type: ignore[misc]


def flat(rows: EncodedRows) -> list[list[int]]:
    assert rows.points is not None
    return [array.tolist() for side in (rows.src, rows.trg, rows.points) for array in (side.flat, side.offsets)]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_ended(pids: list[int]) -> None:
    for _ in range(100):
        if not any(map(alive, pids)):
            return
        time.sleep(0.1)
    raise AssertionError(f"still alive: {[pid for pid in pids if alive(pid)]}")


def test_processes_encode_as_this_one_does_and_in_order(encoder: Encoder) -> None:
    here = [flat(rows) for rows in EncodingWorkers(encoder).encode_all(tasks(9))]
    assert len({tuple(rows[0]) for rows in here}) == 9
    workers = EncodingWorkers(encoder, 3)
    try:
        assert [flat(rows) for rows in workers.encode_all(tasks(9))] == here
        assert [flat(rows) for rows in workers.encode_all(tasks(2))] == here[:2]  # the same processes once more
    finally:
        workers.close()
    assert [flat(rows) for rows in workers.encode_all(tasks(1))] == here[:1]  # closed ones begin anew
    workers.close()


def test_tasks_are_read_a_little_ahead_only(encoder: Encoder) -> None:
    read = []

    def endless() -> Iterator[Task]:
        for number in itertools.count():
            read.append(number)
            yield make_pairs(5, number), (1, number)  # type: ignore[misc]

    workers = EncodingWorkers(encoder, 2)
    rows = workers.encode_all(endless())
    for _ in range(3):
        next(rows)
    rows.close()
    workers.close()
    assert len(read) <= 3 + 4


def test_what_is_wrong_with_the_text_is_said_as_ever(encoder: Encoder) -> None:
    bad: list[Task] = [*tasks(2), ([("ba ba", "BA", "0-7")], (1, 9))]
    workers = EncodingWorkers(encoder, 2)
    rows = workers.encode_all(bad)
    assert [len(next(rows)) >= 20 for _ in range(2)] == [True, True]
    with pytest.raises(UserError, match="0-7 lies outside its sentences of 2 and 1 words"):
        next(rows)
    workers.close()
    broken = EncodingWorkers(encoder, 1)
    with pytest.raises(RuntimeError, match="worker that encodes text failed:\nTraceback"):
        next(broken.encode_all([([(1, 2, 3)], (1,))]))  # type: ignore[list-item]
    broken.close()


def test_a_worker_that_is_killed_asks_for_a_retry(encoder: Encoder) -> None:
    workers = EncodingWorkers(encoder, 2)
    rows = workers.encode_all(tasks(1000))
    next(rows)
    workers._started[0]._process.kill()
    with pytest.raises(TransientError, match=r"signal 9.*--data-workers"):
        for _ in rows:
            pass
    pids = [worker._process.pid for worker in workers._started]
    workers.close()
    assert not any(map(alive, pids))


def test_workers_leave_sigterm_to_the_trainer(encoder: Encoder) -> None:
    workers = EncodingWorkers(encoder, 1)
    rows = workers.encode_all(tasks(50))
    next(rows)
    workers._started[0]._process.send_signal(signal.SIGTERM)
    workers._started[0]._process.send_signal(signal.SIGINT)
    assert sum(1 for _ in rows) == 49
    workers.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_trainer(encoder: Encoder, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "encoder").write_bytes(pickle.dumps(encoder))
    script = (
        "import itertools, pickle, sys, time\n"
        "from pipeline.train.workers import EncodingWorkers\n"
        "workers = EncodingWorkers(pickle.load(open(sys.argv[1], 'rb')), 2)\n"
        "for rows in workers.encode_all(([('ba', 'BA', '0-0')] * 100, (1, n)) for n in itertools.count()):\n"
        "    print(*[worker._process.pid for worker in workers._started], flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "encoder")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        pids = [int(pid) for pid in trainer.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
        os.kill(trainer.pid, number)
    wait_until_ended(pids)


def test_workers_do_not_load_torch() -> None:
    code = "import sys, pipeline.train.workers; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_an_encoder_can_be_sent(encoder: Encoder) -> None:
    rows = make_pairs(50, 1)
    sent = pickle.loads(pickle.dumps(encoder))
    assert flat(sent.encode_rows(rows, (1, 2))) == flat(encoder.encode_rows(rows, (1, 2)))
    assert flat(sent.encode_rows(rows, (1, 3))) != flat(encoder.encode_rows(rows, (1, 2)))
    assert encoder.encode_rows(rows, (1, 2)).src.flat.dtype == np.uint16


def test_how_many() -> None:
    assert [choose_workers(cpus, gpu=False) for cpus in (1, 2, 64)] == [0, 0, 0]
    assert [choose_workers(cpus, gpu=True) for cpus in (1, 2, 8, 64)] == [1, 1, 7, 16]
