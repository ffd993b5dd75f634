"""What training says while it runs: log lines, train.jsonl and TensorBoard."""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from pipeline.common.files import read_lines
from pipeline.common.progress import format_duration
from pipeline.train.batches import PairSizes
from pipeline.train.schedule import Amount, Progress

logger = logging.getLogger(__name__)

JSONL_FILE, TENSORBOARD_FOLDER = "train.jsonl", "tensorboard"
_LONGEST_SILENCE = 10.0


class Meter:
    """Costs and speed of the updates since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.sizes, self.cost, self.alignment_cost, self.seconds = PairSizes(), 0.0, 0.0, 0.0

    def add(self, sizes: PairSizes, cost: float, alignment_cost: float, seconds: float) -> None:
        self.sizes += sizes
        self.cost += cost
        self.alignment_cost += alignment_cost
        self.seconds += seconds

    def figures(self) -> dict[str, float]:
        """Mean costs per target token, target tokens per second, and the share of positions that is padding."""
        tokens = max(self.sizes.target_tokens, 1)
        return {
            "train-cost": self.cost / tokens,
            "alignment-cost": self.alignment_cost / tokens,
            "words-per-second": self.sizes.target_tokens / max(self.seconds, 1e-9),
            "padding": 1 - self.sizes.real / max(self.sizes.padded, 1),
        }


class TrainingLog:
    """Writes the records of validations into train.jsonl (in `folder`, with a copy in `copy_to`) and TensorBoard event
    files, and progress lines into the log. Records behind update `resume_at`, of a training that was killed, are
    dropped.
    """

    def __init__(
        self, folder: Path, copy_to: Path, resume_at: int, limits: Sequence[Amount], lr_report: bool = True
    ) -> None:
        self.path, self.copy, self.limits = folder / JSONL_FILE, copy_to / JSONL_FILE, limits
        self.display, self.since_validation = Meter(), Meter()
        earlier = read_lines(self.path) if resume_at and self.path.exists() else ()
        self._records = [record for record in map(json.loads, earlier) if record["update"] <= resume_at]
        self._events = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=resume_at + 1 if resume_at else None)
        self._started = self._displayed = time.monotonic()
        self._share_at_start: float | None = None
        self._displayed_periods = 0
        self.lr_report = lr_report
        self._write()

    def update(
        self,
        progress: Progress,
        every: Amount,
        rate: float,
        sizes: PairSizes,
        cost: float,
        alignment_cost: float,
        seconds: float,
    ) -> None:
        """Count an update in; log a line every `every`, and at the latest after ten seconds of silence.

        Costs are sums over target tokens, `seconds` is the wall time from update to update, waiting for data included.
        """
        self.display.add(sizes, cost, alignment_cost, seconds)
        self.since_validation.add(sizes, cost, alignment_cost, seconds)
        if self._share_at_start is None:
            self._share_at_start = self._share(progress)
        now, periods = time.monotonic(), progress.periods(every)
        if periods > self._displayed_periods or now - self._displayed >= _LONGEST_SILENCE:
            logger.info(self._line(progress, rate, now))
            self._displayed, self._displayed_periods = now, periods
            self.display.reset()

    def validation(self, record: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Write one validation into train.jsonl, TensorBoard and the log. `metrics` are the names of its metrics in
        the record, the one that chooses the best model first.
        """
        self._records.append(dict(record))
        self._write()
        for name, value in record.items():
            if isinstance(value, float):
                folder = "valid" if name in metrics else "train"
                self._events.add_scalar(f"{folder}/{name}", value, record["update"])
        self._events.flush()
        values = ", ".join(f"{name} {record[name]:.4g}" for name in metrics)
        verdict = f"best {metrics[0]} so far" if record["best"] else f"stalled {record['stalled']} times"
        logger.info(f"validation at update {record['update']:,}: {values} ({verdict})")
        self.since_validation.reset()

    def close(self) -> None:
        self._events.close()

    def _write(self) -> None:
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in self._records)
        for path in (self.path, self.copy):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)

    def _line(self, progress: Progress, rate: float, now: float) -> str:
        figures = self.display.figures()
        line = (
            f"training: update {progress.updates:,}, epoch {progress.epochs:.1f}, cost {figures['train-cost']:.3f}, "
            f"{figures['words-per-second']:,.0f} words/s"
        )
        if self.lr_report:
            line += f", learning rate {rate:.2e}"
        share, share_at_start = self._share(progress), self._share_at_start or 0.0
        if share > share_at_start:
            left = (now - self._started) * (1 - share) / (share - share_at_start)
            line += f", {format_duration(max(left, 0.0))} left"
        return line

    def _share(self, progress: Progress) -> float:
        return max((progress.of(limit.unit) / limit.count for limit in self.limits), default=0.0)
