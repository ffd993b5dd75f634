"""Processes that encode text beside the trainer, and the program that each of them runs.

They are programs of their own, not forks: a fork of a process with threads and a GPU is not safe, and these need not
load torch. Requests come through a worker's standard input and answers go to its standard output; so when the trainer
ends, in whatever way, its end of the pipes closes, and the workers end too.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from pipeline.common.errors import TransientError, UserError
from pipeline.train.encoding import EncodedRows, Encoder
from pipeline.train.shuffle import Row

Task = tuple[list[Row], tuple[int, ...]]

_MOST_WORKERS = 16


class EncodingWorkers:
    """Encodes rows in `count` processes, or in this one when there are none. What comes out is the same."""

    def __init__(self, encoder: Encoder, count: int = 0) -> None:
        self.encoder, self.count = encoder, count
        self._started: list[_Worker] = []

    def encode_all(self, tasks: Iterable[Task]) -> Generator[EncodedRows, None, None]:
        """The encoded rows of each task (rows, seed), in order; tasks are read a little ahead.

        Raises UserError as the encoder does, and TransientError when a process was ended from outside.
        """
        if not self.count:
            for task in tasks:
                yield self.encoder.encode_rows(*task)
            return
        idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._start():
            idle.put(worker)

        def encode(task: Task) -> EncodedRows:
            worker = idle.get()
            try:
                return worker.encode(task)
            finally:
                idle.put(worker)

        source = iter(tasks)
        # A thread for each worker: they only wait for it.
        with ThreadPoolExecutor(self.count, "encoding") as threads:
            pending: deque[Future[EncodedRows]] = deque()
            try:
                # Two tasks for each worker are ready, so that none waits while the first one's result is awaited.
                for task in islice(source, 2 * self.count):
                    pending.append(threads.submit(encode, task))
                while pending:
                    done = pending.popleft().result()
                    for task in islice(source, 1):
                        pending.append(threads.submit(encode, task))
                    yield done
            finally:
                for future in pending:
                    future.cancel()

    def close(self) -> None:
        """End the processes."""
        for worker in self._started:
            worker.close()
        self._started = []

    def _start(self) -> list["_Worker"]:
        if not self._started:
            encoder = pickle.dumps(self.encoder)
            self._started = [_Worker(encoder) for _ in range(self.count)]
        return self._started


class _Worker:
    """One process."""

    def __init__(self, encoder: bytes) -> None:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.train.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdin and self._process.stdout
        self._requests, self._answers = self._process.stdin, self._process.stdout
        try:
            self._requests.write(encoder)
        except BrokenPipeError:
            self._ended()

    def encode(self, task: Task) -> EncodedRows:
        try:
            pickle.dump(task, self._requests, pickle.HIGHEST_PROTOCOL)
            self._requests.flush()
            kind, answer = pickle.load(self._answers)
        except (OSError, EOFError, pickle.UnpicklingError, ValueError):
            self._ended()
        if kind == "refused":
            raise UserError(answer)
        if kind == "failed":
            raise RuntimeError(f"a worker that encodes text failed:\n{answer}")
        encoded: EncodedRows = answer
        return encoded

    def close(self) -> None:
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()

    def _ended(self) -> Any:
        code = self._process.wait()
        reason = f"signal {-code}" if code < 0 else f"status {code}"
        raise TransientError(
            f"a process that encodes text ended by itself ({reason}): perhaps the machine is out of memory; "
            "with fewer --data-workers it needs less"
        )


def choose_workers(cpus: int, gpu: bool) -> int:
    """How many workers a trainer with so many processors to itself has use for.

    On a processor, encoding is a hundredth of the work of training: a thread does it. A GPU is fed by all processors
    but the one that drives it.
    """
    return min(max(cpus - 1, 1), _MOST_WORKERS) if gpu else 0


def main() -> None:
    """Answer requests until there are no more."""
    # Ctrl-C and SIGTERM are for the trainer, which saves a checkpoint first; the closed pipe ends this process then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library may print must not come between
    try:
        encoder: Encoder = pickle.load(requests)
        while True:
            task: Task = pickle.load(requests)
            answer: tuple[str, Any]
            try:
                answer = ("encoded", encoder.encode_rows(*task))
            except UserError as error:
                answer = ("refused", str(error))
            except Exception:
                answer = ("failed", traceback.format_exc())
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):
        pass


if __name__ == "__main__":
    # Under its own name: what was pickled elsewhere names this module.
    main()
