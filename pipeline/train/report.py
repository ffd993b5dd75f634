"""What training says while it runs: log lines, train.jsonl and TensorBoard."""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tensorboardX import SummaryWriter

from pipeline.common.files import read_lines
from pipeline.common.progress import format_duration
from pipeline.model.config import ModelConfig
from pipeline.train.batches import PairSizes
from pipeline.train.options import TrainingOptions
from pipeline.train.schedule import Progress
from pipeline.train.utilisation import update_operations

logger = logging.getLogger(__name__)

JSONL_FILE, TENSORBOARD_FOLDER = "train.jsonl", "tensorboard"
_LONGEST_SILENCE = 10.0


class Publisher(Protocol):
    """Takes curves elsewhere."""

    def publish(self, values: Mapping[str, float], update: int) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class UpdateReport:
    """What is known of one update: its sizes over all processes, the costs summed over its target tokens (`cost`
    first), the norm of its gradient before clipping, wall seconds from update to update, and those among them spent
    waiting for data.
    """

    sizes: PairSizes
    costs: Mapping[str, float]
    gradient_norm: float
    seconds: float
    waited: float


class Meter:
    """Costs and speed of the updates since the last reset.

    `peak` is what the devices of all processes can compute in a second, 0 when unknown.
    """

    def __init__(self, config: ModelConfig, peak: float) -> None:
        self.config, self.peak = config, peak
        self.reset()

    def reset(self) -> None:
        self.sizes, self.updates = PairSizes(), 0
        self.costs: Counter[str] = Counter()
        self.gradient_norm = self.seconds = self.waited = 0.0

    def add(self, report: UpdateReport) -> None:
        self.sizes += report.sizes
        self.updates += 1
        self.costs.update(report.costs)
        self.gradient_norm += report.gradient_norm
        self.seconds += report.seconds
        self.waited += report.waited

    def figures(self) -> dict[str, float]:
        """Mean costs per target token, target tokens per second, the mean norm of the gradients, the shares of
        positions that are padding and of time spent waiting for data, and the share of the devices' peak that was used
        (`update_operations`).
        """
        tokens, seconds = max(self.sizes.target_tokens, 1), max(self.seconds, 1e-9)
        costs = {"train-cost" if name == "cost" else name: cost / tokens for name, cost in self.costs.items()}
        figures = {
            **costs,
            "words-per-second": self.sizes.target_tokens / seconds,
            "gradient-norm": self.gradient_norm / max(self.updates, 1),
            "padding": 1 - self.sizes.real / max(self.sizes.padded, 1),
            "waiting": self.waited / seconds,
        }
        if self.peak:
            figures["mfu"] = update_operations(self.config, self.sizes) / seconds / self.peak
        return figures


class TrainingLog:
    """Writes the records of validations into train.jsonl (in `folder`, with a copy in `copy_to`) and TensorBoard event
    files, and progress lines into the log. Records behind update `resume_at`, of a training that was killed, are
    dropped.
    """

    def __init__(
        self,
        folder: Path,
        copy_to: Path,
        resume_at: int,
        options: TrainingOptions,
        config: ModelConfig,
        peak: float,
        publisher: Publisher | None = None,
    ) -> None:
        """`peak` is what the devices of all processes can compute in a second (0: unknown)."""
        self.path, self.copy, self.limits = folder / JSONL_FILE, copy_to / JSONL_FILE, options.limits()
        self.display, self.since_validation = Meter(config, peak), Meter(config, peak)
        earlier = read_lines(self.path) if resume_at and self.path.exists() else ()
        self._records = [record for record in map(json.loads, earlier) if record["update"] <= resume_at]
        self._events = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=resume_at + 1 if resume_at else None)
        self._started = self._displayed = time.monotonic()
        self._share_at_start: float | None = None
        self._displayed_periods = 0
        self.options, self.publisher = options, publisher
        self._write()

    def update(self, progress: Progress, rate: float, report: UpdateReport) -> None:
        """Count an update in; log a line every disp-freq, and at the latest after ten seconds of silence."""
        self.display.add(report)
        self.since_validation.add(report)
        if self._share_at_start is None:
            self._share_at_start = self._share(progress)
        now, periods = time.monotonic(), progress.periods(self.options.disp_freq)
        if periods > self._displayed_periods or now - self._displayed >= _LONGEST_SILENCE:
            figures = self.display.figures()
            logger.info(self._line(progress, rate, figures, now))
            self._publish({f"display/{name}": value for name, value in figures.items()}, progress.updates)
            self._displayed, self._displayed_periods = now, periods
            self.display.reset()

    def validation(self, record: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Write one validation into train.jsonl, TensorBoard and the log. `metrics` are the names of its metrics in
        the record, the one that chooses the best model first.
        """
        self._records.append(dict(record))
        self._write()
        scalars = {name: value for name, value in record.items() if isinstance(value, float)}
        folders = {name: "valid" if name in metrics else "train" for name in scalars}
        self._publish({f"{folders[name]}/{name}": value for name, value in scalars.items()}, record["update"])
        self._events.flush()
        values = ", ".join(f"{name} {record[name]:.4g}" for name in metrics)
        verdict = f"best {metrics[0]} so far" if record["best"] else f"stalled {record['stalled']} times"
        logger.info(f"validation at update {record['update']:,}: {values} ({verdict})")
        self.since_validation.reset()

    def close(self) -> None:
        self._events.close()
        if self.publisher is not None:
            self.publisher.close()

    def _publish(self, values: Mapping[str, float], update: int) -> None:
        for name, value in values.items():
            self._events.add_scalar(name, value, update)
        if self.publisher is not None:
            self.publisher.publish(values, update)

    def _write(self) -> None:
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in self._records)
        for path in (self.path, self.copy):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)

    def _line(self, progress: Progress, rate: float, figures: Mapping[str, float], now: float) -> str:
        others = "".join(f", {name} {figures[name]:.3f}" for name in self.display.costs if name != "cost")
        line = (
            f"training: update {progress.updates:,}, epoch {progress.epochs:.1f}, "
            f"cost {figures['train-cost']:.3f} per word{others}, {figures['words-per-second']:,.0f} words/s, "
            f"gradient norm {figures['gradient-norm']:.2f}"
        )
        if self.options.lr_report:
            line += f", learning rate {rate:.2e}"
        line += f", padding {figures['padding']:.1%}, waiting for data {figures['waiting']:.1%}"
        if "mfu" in figures:
            line += f", MFU {figures['mfu']:.1%}"
        share, share_at_start = self._share(progress), self._share_at_start or 0.0
        if share > share_at_start:
            left = (now - self._started) * (1 - share) / (share - share_at_start)
            line += f", {format_duration(max(left, 0.0))} left"
        return line

    def _share(self, progress: Progress) -> float:
        return max((progress.of(limit.unit) / limit.count for limit in self.limits), default=0.0)
