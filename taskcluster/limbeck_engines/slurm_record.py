"""What became of tasks, from what their jobs wrote down and from what Slurm still knows of the jobs."""

import re
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from limbeck_engines.logs import last_lines
from limbeck_engines.slurm_client import WAITING, SlurmJob
from limbeck_engines.slurm_files import STOPPED, Order, Run, State, read_array, slurm_log
from limbeck_engines.store import Store, TaskRow
from limbeck_engines.task import (
    CANCELLED,
    COMPLETED,
    DONE,
    FAILED,
    INTERRUPTED,
    PENDING,
    REUSED,
    RUNNING,
    SKIPPED,
)

_NEVER = "DependencyNeverSatisfied"
_OWN_FAULT = {
    "TIMEOUT": "ran into the time limit of its job",
    "DEADLINE": "ran into the deadline of its job",
    "OUT_OF_MEMORY": "needed more memory than its job had: give its worker type more in the profile",
}
# What Slurm says in a job's log, of jobs that it has forgotten by now.
_OUT_OF_MEMORY = re.compile(r"oom[-_ ]kill|out of memory|exceeded memory limit", re.IGNORECASE)
_OUT_OF_TIME = re.compile(r"DUE TO TIME LIMIT")


def jobs_by_task(store: Store, group_id: str, jobs: list[SlurmJob]) -> dict[str, SlurmJob]:
    """The newest job of each task of a group: found by what the jobs say of themselves, never by their ids."""
    found: dict[str, SlurmJob] = {}
    arrays: dict[str, dict[int, str]] = {}
    for job in jobs:
        comment = job.comment
        if comment.group_id != group_id:
            continue
        task_id: str | None = comment.name
        if job.index is not None:
            if comment.name not in arrays:
                arrays[comment.name] = read_array(store.layout, group_id, comment.name)
            task_id = arrays[comment.name].get(job.index)
        if task_id is None:
            continue
        known = found.get(task_id)
        if known is None or (comment.submission, job.living) > (known.comment.submission, known.living):
            found[task_id] = job
    return found


def reconcile(store: Store, group_id: str, jobs: list[SlurmJob] | None, late: float = 0.0) -> None:
    """Write down what became of a group's tasks. `jobs`: None when Slurm does not answer.

    `late`: seconds after the end of a job within which what it wrote may not be visible here yet.
    """
    rows = {row.task_id: row for row in store.tasks(group_id)}
    by_task = {} if jobs is None else jobs_by_task(store, group_id, jobs)
    changes: dict[str, dict[str, Any]] = {}
    for row in rows.values():
        if row.state not in (PENDING, RUNNING):
            continue
        job = by_task.get(row.task_id)
        written = _read_state(store, row, job)
        found = _by_files(row, written, job)
        if found is None and jobs is not None:
            run = written.runs[-1] if written and written.runs else None
            found = _by_slurm(store, row, run, job, late)
        if found is not None:
            changes[row.task_id] = found
    _spread(rows, changes)
    _say_what_blocks(rows, changes)
    with store.transaction():
        for task_id, values in changes.items():
            before = rows[task_id]
            changed = {name: value for name, value in values.items() if getattr(before, name) != value}
            if changed:
                store.update_task(task_id, **changed)
        group, state = store.group(group_id), group_state(store.tasks(group_id))
        if group.state != state:
            store.update_group(group_id, state=state)


def group_state(rows: list[TaskRow]) -> str:
    """A group runs as long as one of its tasks has a job."""
    counts = Counter(row.state for row in rows)
    if counts[RUNNING] or any(row.state == PENDING and row.job for row in rows):
        return RUNNING
    if sum(counts[state] for state in DONE) == len(rows):
        return COMPLETED
    return FAILED if counts[FAILED] else CANCELLED if counts[CANCELLED] else INTERRUPTED


def _read_state(store: Store, row: TaskRow, job: SlurmJob | None) -> State | None:
    """What a task's job has written since it was handed over last."""
    if job is not None and job.state == "PENDING" and job.reason == "Dependency" and row.run is None:
        return None  # it has never run: no need to look for files
    order = Order.read(store.layout, row.task_id)
    return State.read(store.layout, row.task_id, order.submission) if order else None


def _by_files(row: TaskRow, written: State | None, job: SlurmJob | None) -> dict[str, Any] | None:
    """What the files say of a task's end; None when that does not settle it."""
    run = written.runs[-1] if written and written.runs else None
    if written is None or run is None or run.end not in (COMPLETED, REUSED, FAILED):
        return None
    return {
        "state": run.end,
        "run": run.number if run.number >= 0 else row.run,
        "exit_code": run.exit_code,
        "reason": run.reason,
        "started": run.started,
        "finished": run.finished,
        "reused_from": written.source,
        "job": job.job_id if job else row.job or run.job,
    }


def _by_slurm(store: Store, row: TaskRow, run: Run | None, job: SlurmJob | None, late: float) -> dict[str, Any]:
    """What Slurm says of a task whose job has not written how it ended. `run`: the newest that it wrote of."""
    values: dict[str, Any] = {}
    if run is not None and run.number >= 0:
        values = {"run": run.number, "started": run.started, "exit_code": run.exit_code, "finished": run.finished}
    if job is None:
        return _gone(store, row, run, values, late)
    values["job"] = job.job_id
    if job.state in WAITING:
        again = f"queued again after run {run.number + 1}: {run.reason or run.end}; " if run and run.end else ""
        return {**values, "state": PENDING, "reason": f"{again}{_waiting_for(job)}"}
    if job.living:
        return {**values, "state": RUNNING, "started": values.get("started") or time.time(), "reason": None}
    if late and time.time() - (job.ended or time.time()) < late:
        return {"state": row.state}
    ended = {**values, "finished": values.get("finished") or time.time(), "job": None}
    if job.state == "CANCELLED":
        # Which failure it was is found out from the tasks it depends on.
        never = job.reason == _NEVER or (run is None and job.reason == "Dependency")
        return {**ended, "state": CANCELLED, "reason": _NEVER if never else "its job was cancelled"}
    if job.state in _OWN_FAULT:
        return {**ended, "state": FAILED, "reason": _with_log(store, row, _OWN_FAULT[job.state])}
    if job.state in ("COMPLETED", "FAILED"):
        if run is not None and run.end not in (None, STOPPED):
            return _gone(store, row, run, values, late)
        reason = "its job was told to stop" if run and run.end else "its job ended without a word"
        return {**ended, "state": FAILED, "reason": _with_log(store, row, reason)}
    return {**ended, "state": PENDING, "reason": _lost(row, f"its job ended as {job.state}")}


def _gone(store: Store, row: TaskRow, run: Run | None, values: dict[str, Any], late: float) -> dict[str, Any]:
    """Slurm does not know the job any more, and the task has not ended."""
    log = slurm_log(store.layout, row.task_id)
    newest = max((path.stat().st_mtime for path in (log, store.layout.runs(row.task_id)) if path.exists()), default=0.0)
    if late and time.time() - newest < late:
        return {"state": row.state}
    said = "\n".join(last_lines(log))
    values = {**values, "job": None, "finished": values.get("finished") or row.finished or time.time()}
    for pattern, state in ((_OUT_OF_MEMORY, "OUT_OF_MEMORY"), (_OUT_OF_TIME, "TIMEOUT")):
        if run is not None and run.end is None and pattern.search(said):
            return {**values, "state": FAILED, "reason": _with_log(store, row, _OWN_FAULT[state])}
    if run is None:
        values["finished"] = None
    # Of one that has no job because it was lost before, the reason stands there already.
    reason = _lost(row, "its job is gone") if row.job else row.reason or _lost(row, "it has no job")
    return {**values, "state": PENDING, "reason": reason}


def _lost(row: TaskRow, why: str) -> str:
    return f"{why}; limbeck resume {row.group_id} runs it again"


def _with_log(store: Store, row: TaskRow, reason: str) -> str:
    lines = last_lines(slurm_log(store.layout, row.task_id))
    return f"{reason}; Slurm's log ends with: {lines[-1]}" if lines else reason


def _waiting_for(job: SlurmJob) -> str:
    if job.reason == "Dependency":
        return "blocked"
    if job.reason in ("None", ""):
        return "queued in Slurm"
    return f"queued in Slurm: {job.reason}"


def _spread(rows: Mapping[str, TaskRow], changes: dict[str, dict[str, Any]]) -> None:
    """What waits for a failed task is skipped; what waits for a cancelled one is cancelled; each says because of what.

    Slurm cancels such jobs by itself, a moment later.
    """

    def state(task_id: str) -> str:
        values = changes.get(task_id, {})
        return str(values.get("state", rows[task_id].state))

    dependents: dict[str, list[str]] = {}
    for row in rows.values():
        for dependency in row.dependencies:
            dependents.setdefault(dependency, []).append(row.task_id)
    for cause, effect in ((FAILED, SKIPPED), (CANCELLED, CANCELLED)):
        roots = [
            task_id for task_id in rows if state(task_id) == cause and changes.get(task_id, {}).get("reason") != _NEVER
        ]
        for root in roots:
            label = rows[root].label
            reached = [root]
            for task_id in reached:  # grows while it is read
                for dependent in dependents.get(task_id, ()):
                    never = changes.get(dependent, {}).get("reason") == _NEVER
                    if state(dependent) == PENDING or never:
                        reason = label if effect == SKIPPED else f"needs {label}, which was cancelled"
                        changes[dependent] = {"state": effect, "reason": reason, "job": None, "finished": None}
                        reached.append(dependent)
    for task_id, values in changes.items():
        if values.get("reason") == _NEVER:
            unfinished = [rows[each].label for each in rows[task_id].dependencies if each in rows]
            values |= {"reason": f"needs {unfinished[0]}" if unfinished else "needs a task of another group"}


def _say_what_blocks(rows: Mapping[str, TaskRow], changes: dict[str, dict[str, Any]]) -> None:
    for task_id, values in changes.items():
        if values.get("state") != PENDING or values.get("reason") != "blocked":
            continue
        waits_for = [
            rows[dependency].label
            for dependency in rows[task_id].dependencies
            if dependency in rows and changes.get(dependency, {}).get("state", rows[dependency].state) not in DONE
        ]
        more = f" and {len(waits_for) - 1} more" if len(waits_for) > 1 else ""
        values["reason"] = f"blocked: waits for {waits_for[0]}{more}" if waits_for else "queued in Slurm"
