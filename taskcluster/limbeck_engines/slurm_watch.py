"""Watching a group that goes on by itself."""

import time
from typing import TYPE_CHECKING

from limbeck_engines.base import GroupStatus
from limbeck_engines.display import Display, RunningTask
from limbeck_engines.store import TaskRow
from limbeck_engines.task import COMPLETED, FAILED, PENDING, RUNNING, SKIPPED, Summary

if TYPE_CHECKING:
    from limbeck_engines.slurm import SlurmEngine


def watch(engine: "SlurmEngine", group_id: str, display: Display, poll: float) -> Summary:
    """Show a group until nothing of it has a job any more; Ctrl-C ends the watching, and nothing else."""
    began = time.monotonic()
    status = engine.status(group_id)
    known: dict[str, TaskRow] = {row.task_id: row for row in status.tasks}
    display.begin(status.group.name, status.counts)
    try:
        while True:
            for row in status.tasks:
                _tell(display, known[row.task_id], row)
            known = {row.task_id: row for row in status.tasks}
            if status.group.state != RUNNING:
                break
            running = [_running(engine, row) for row in status.tasks if row.state == RUNNING]
            display.refresh(status.counts, running)
            time.sleep(poll)
            status = engine.status(group_id)
    except KeyboardInterrupt:
        display.note(
            f"the jobs go on without this command: limbeck status {group_id} shows them, limbeck cancel {group_id} "
            "stops them"
        )
    finally:
        display.close()
    summary = _summary(status, time.monotonic() - began)
    display.end(summary)
    return summary


def _running(engine: "SlurmEngine", row: TaskRow) -> RunningTask:
    log = engine.store.layout.run(row.task_id, row.run or 0) / "live.log"
    return RunningTask(row.label, row.started or time.time(), log)


def _tell(display: Display, before: TaskRow, now: TaskRow) -> None:
    """What has changed between two looks."""
    if (before.state, before.run) == (now.state, now.run):
        return
    if now.state == RUNNING:
        display.started(now.label, now.run or 0)
    elif now.state != PENDING or before.state == RUNNING:
        if before.state == PENDING and now.state in (COMPLETED, FAILED) and now.run is not None:
            display.started(now.label, now.run)  # it ran between the two looks
        seconds = (now.finished or time.time()) - (now.started or now.finished or time.time())
        display.ended(now.label, now.state, max(seconds, 0.0), now.reason)


def _summary(status: GroupStatus, seconds: float) -> Summary:
    def pairs(state: str) -> list[tuple[str, str]]:
        return [(row.label, row.reason or "") for row in status.tasks if row.state == state]

    group = status.group
    return Summary(group.group_id, group.name, group.state, status.counts, seconds, pairs(FAILED), pairs(SKIPPED))
