"""Where the time of an update goes: a trace of a few updates."""

import logging
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

logger = logging.getLogger(__name__)

TRACE_FILE = "profile.json"
_WAIT, _WARM_UP, _RECORDED = 10, 2, 5  # updates


class Profiler:
    """Records five updates after the first twelve into `folder`/profile.json, for chrome://tracing or Perfetto, and
    logs the operations that took longest. Without a folder it does nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._profile: profile | None = None
        if folder is not None:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            when = schedule(wait=_WAIT, warmup=_WARM_UP, active=_RECORDED, repeat=1)
            self._profile = profile(activities=activities, schedule=when, on_trace_ready=self._write)
            self._profile.start()

    def step(self) -> None:
        """An update is done."""
        if self._profile is not None:
            self._profile.step()

    def close(self) -> None:
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _write(self, recorded: profile) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / TRACE_FILE
        recorded.export_chrome_trace(str(path))
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = recorded.key_averages().table(sort_by=key, row_limit=20, max_name_column_width=40)
        logger.info(f"training: {_RECORDED} updates are recorded in {path}\n{table}")
