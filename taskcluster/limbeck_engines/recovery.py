"""Setting the record right after an engine died, so that nothing finished is lost and nothing runs twice."""

import time
from pathlib import Path

from limbeck_engines.artifacts import find_damage
from limbeck_engines.locks import FileLock
from limbeck_engines.processes import kill_orphans
from limbeck_engines.store import Store, TaskRow
from limbeck_engines.task import CANCELLED, COMPLETED, DONE, FAILED, INTERRUPTED, PENDING, RUNNING, SKIPPED


def group_lock_path(store: Store, group_id: str) -> Path:
    """The lock that an engine holds while it runs a group."""
    return store.layout.lock(f"group-{group_id}")


def recover_dead_groups(store: Store) -> None:
    """Recover the groups that are recorded as running while no engine holds their lock.

    Those of other engines than the local one go on without a process that holds one.
    """
    for group in store.groups():
        if (
            group.engine == "local"
            and group.state == RUNNING
            and (lock := FileLock.acquire(group_lock_path(store, group.group_id)))
        ):
            try:
                recover(store, [row for row in store.tasks(group.group_id) if row.state == RUNNING])
                store.update_group(group.group_id, state=INTERRUPTED)
            finally:
                lock.release()


def recover(store: Store, rows: list[TaskRow]) -> None:
    """Repair unfinished tasks that no engine runs. What is left of their processes is killed first.

    A task whose artifacts were published, and are whole, is completed, even if its engine died before it could say so.
    One that was recorded as running is otherwise pending again.
    """
    kill_orphans([(row.pid, row.pid_started, row.task_id) for row in rows if row.pid and row.pid_started])
    with store.transaction():
        for row in rows:
            run = store.layout.newest_run(row.task_id)
            folder = None if run is None else store.layout.run(row.task_id, run)
            if folder is not None and find_damage(folder) is None:
                finished = folder.joinpath("manifest.json").stat().st_mtime
                store.update_task(
                    row.task_id, state=COMPLETED, run=run, exit_code=0, reason=None, finished=finished, pid=None
                )
            elif row.state == RUNNING:
                store.update_task(row.task_id, state=PENDING, reason="its engine died", finished=time.time(), pid=None)


def put_back(store: Store, group_id: str) -> None:
    """Make pending again what failed, was skipped or was cancelled."""
    with store.transaction():
        for row in store.tasks(group_id):
            if row.state in (FAILED, SKIPPED, CANCELLED):
                store.update_task(row.task_id, state=PENDING, reason=None, job=None)


def put_back_damaged(store: Store, group_id: str) -> list[tuple[str, str]]:
    """Make pending again what is finished but has lost the artifacts that an unfinished task needs.

    Returns the labels and what is wrong with them.
    """
    rows = {row.task_id: row for row in store.tasks(group_id)}
    needing = [row for row in rows.values() if row.state not in DONE]
    found, seen = [], set()
    while needing:
        for dependency in needing.pop().dependencies:
            row = rows.get(dependency)
            if row is None or row.state not in DONE or dependency in seen:
                continue
            seen.add(dependency)
            damage = store.damage(row)
            if damage:
                store.update_task(dependency, state=PENDING, reason=damage, reused_from=None, job=None)
                found.append((row.label, damage))
                needing.append(row)
    return found
