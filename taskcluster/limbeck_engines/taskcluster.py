"""The engine of a Taskcluster deployment: a pushed commit's action `train` makes the tasks, its workers run them.

Nothing runs on this machine. What the queue knows of a group is copied into the record whenever somebody asks.
"""

import argparse
import dataclasses
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from limbeck_engines.base import Engine, GroupStatus
from limbeck_engines.display import Display, RunningTask
from limbeck_engines.store import GroupRow, TaskRow
from limbeck_engines.task import CANCELLED, COMPLETED, FAILED, PENDING, RUNNING, SKIPPED, Summary, Task
from limbeck_engines.taskcluster_client import ROOT_URL, ConflictError, Deployment, root_of
from limbeck_engines.taskcluster_git import Checkout
from limbeck_engines.taskcluster_logs import log_lines, reason_of_failure
from limbeck_engines.taskcluster_places import check_places
from limbeck_engines.taskcluster_reading import read_artifacts, read_group, read_labels, read_tasks
from limbeck_engines.taskcluster_states import Listed, group_state, rows_of
from limbeck_engines.taskcluster_trigger import (
    Patience,
    create_decision,
    decision_of,
    trigger_action,
    wait_for_decision,
)
from limbeck_taskgraph.catalogue import ROOT
from pipeline.common.errors import TransientError, UserError

if TYPE_CHECKING:
    from taskgraph.taskgraph import TaskGraph

    from limbeck_taskgraph.reuse import Plan
    from limbeck_taskgraph.training_config import TrainingConfig

logger = logging.getLogger(__name__)

NAME = "taskcluster"
PROJECT = ROOT.parent  # the checkout that is pushed
_EXPLAINED = 10  # failures whose logs are read when a group is looked at
_GONE = "the deployment does not know it any more"


@dataclass(frozen=True)
class Source:
    """What is run: the checkout, whether it is pushed, and what happens where no push is heard of."""

    checkout: Checkout
    push: bool = True
    create_decision: bool = False
    patience: Patience = field(default_factory=Patience)


class TaskclusterEngine(Engine):
    """Runs groups on a Taskcluster deployment: a new one on that of the environment, an old one where it was begun."""

    attended = False
    shares_files = False

    def __init__(self, runs_dir: Path, source: Source | None = None, look: float = 10.0) -> None:
        """`look`: seconds between two looks at a group that is watched."""
        super().__init__(runs_dir)
        self._source = source or Source(Checkout(PROJECT))
        self._look = look
        self._deployments: dict[str, Deployment] = {}
        self._reused_by: dict[str, list[Listed]] = {}
        # Cancelled before what they need was done: the queue cannot make them wait again, so `run` does.
        self._held: dict[str, set[str]] = {}

    @classmethod
    def add_arguments(cls, parser: "argparse._ActionsContainer") -> None:
        add = parser.add_argument
        add("--remote", help="the git remote to push to (default: that of the branch's upstream)")
        add("--branch", help="the branch to push to (default: the upstream)")
        add("--no-push", action="store_true", help="the commit is pushed already; changes that are not are left out")
        add("--create-decision", action="store_true", help="create the decision task, where no push is heard of")
        add(
            "--decision-wait",
            type=float,
            default=30.0,
            metavar="MINUTES",
            help="how long to wait for the decision task (default: 30)",
        )

    @classmethod
    def from_options(cls, runs_dir: Path, options: argparse.Namespace) -> Self:
        for flag in ("no_reuse", "force_stage", "existing_task", "verify"):
            if getattr(options, flag):
                raise UserError(
                    f"--{flag.replace('_', '-')} is for engines that use the runs folder: the decision is made on the "
                    "deployment, from the config alone; its keys start-task-prefix and existing-tasks do the like"
                )
        source = Source(
            Checkout(PROJECT, options.remote, options.branch),
            push=not options.no_push,
            create_decision=options.create_decision,
            patience=Patience(options.decision_wait * 60),
        )
        engine = cls(runs_dir, source)
        if not options.dry_run:
            engine.check()
        return engine

    def check(self) -> None:
        """Raise UserError unless a group could be submitted: before anybody waits, and before anything is pushed."""
        self._current.check_credentials()
        if self._source.push:
            self._source.checkout.check_clean()
        self._source.checkout.target()

    def plan(self, graph: "TaskGraph", config: "TrainingConfig") -> "Plan":
        """What the action will decide, as the index of the deployment stands now.

        Raises UserError when the config names files of this machine, which the workers do not see.
        """
        from taskgraph.config import load_graph_config

        from limbeck_taskgraph.actions.training_run import plan_run
        from limbeck_taskgraph.deployment import deployment_of

        check_places(graph)
        # What asks the index takes the deployment from the environment, as in a decision task.
        os.environ[ROOT_URL] = self._current.root_url
        graph_config = load_graph_config(str(ROOT))
        level = deployment_of(graph_config).level
        plan: Plan = self._current.ask("the index", plan_run, graph, graph_config, level, config)
        return plan

    def submit(self, group_id: str, name: str, tasks: list[Task], config_text: str) -> str:
        """The group's id is that of the action's task, which makes the group's tasks from the config."""
        from limbeck_taskgraph.config_file import parse_training_config

        config = parse_training_config(config_text, name)
        deployment, source = self._current, self._source
        self.check()
        pushed = source.checkout.push() if source.push else source.checkout.check_pushed()
        _say(f"commit {pushed.revision[:12]} is on {pushed.branch} of {pushed.url}")
        decision = decision_of(source.checkout.folder, pushed, source.checkout.author(), deployment.root_url)
        created = None
        if source.create_decision and not deployment.find_tasks([decision.path]):
            created = create_decision(deployment, decision)
            _say(f"created the decision task {deployment.task_page(created)}")
        try:
            decision_id = wait_for_decision(deployment, decision.path, created, source.patience, _say)
        except KeyboardInterrupt as error:
            raise UserError("stopped while waiting for the decision task: nothing was triggered") from error
        given = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
        task_id = trigger_action(deployment, decision_id, given)
        page = deployment.group_page(task_id)
        # Said before it is recorded: it goes on even if that fails.
        _say(f"triggered: {page}")
        self.store.add_group(task_id, name, config_text, [], engine=NAME, url=page)
        return task_id

    def status(self, group_id: str) -> GroupStatus:
        """As the queue has it now; as it was last seen, with a warning, while the deployment cannot be reached."""
        group = self.store.group(group_id)
        if group.state != COMPLETED:
            try:
                self._copy(group)
            except TransientError as error:
                logger.warning(f"{error}; {group_id} is shown as it was last seen")
            group = self.store.group(group_id)
        rows = self.store.tasks(group_id)
        return GroupStatus(group, rows, Counter(row.state for row in rows))

    def _copy(self, group: GroupRow) -> list[Listed]:
        """Copy what the queue knows of a group into the record."""
        known = {row.task_id: row for row in self.store.tasks(group.group_id)}
        listed = read_group(self._deployment(group), group.group_id)
        if not listed:
            unfinished = [row for row in known.values() if row.state in (PENDING, RUNNING)]
            self.store.put_tasks(dataclasses.replace(row, state=FAILED, reason=_GONE) for row in unfinished)
            self.store.update_group(group.group_id, state=FAILED)
            logger.warning(f"{group.group_id}: {_GONE} ({group.url})")
            return []
        action = next((task for task in listed if task.task_id == group.group_id), None)
        rows = rows_of(group.group_id, action, listed, self._reused(group, action, listed))
        changed = [row for row in self._explained(group, rows, known) if row != known.get(row.task_id)]
        self.store.put_tasks(changed)
        state = group_state(rows)
        if state != group.state:
            self.store.update_group(group.group_id, state=state)
        return listed

    def _reused(self, group: GroupRow, action: Listed | None, listed: list[Listed]) -> list[Listed]:
        """The tasks of earlier groups that a group stands on, as its action noted them; not those of the record."""
        if action is None or action.status["state"] != "completed":
            return []
        if group.group_id not in self._reused_by:
            deployment, own = self._deployment(group), {task.task_id for task in listed}
            task_ids = sorted(set(read_labels(deployment, group.group_id).values()) - own)
            rows = {task_id: self.store.find_task(task_id) for task_id in task_ids}
            unknown = [one for one, row in rows.items() if row is None or row.group_id == group.group_id]
            self._reused_by[group.group_id] = [task for task in read_tasks(deployment, unknown) if task.is_ours]
        return self._reused_by[group.group_id]

    def _explained(self, group: GroupRow, rows: list[TaskRow], known: Mapping[str, TaskRow]) -> Iterator[TaskRow]:
        """The rows, those of failed tasks with the reason that their logs give."""
        read = 0
        for row in rows:
            earlier, run, reason = known.get(row.task_id), row.run, row.reason
            if row.state == FAILED and reason == "failed" and run is not None:
                if earlier is not None and earlier.state == FAILED and earlier.run == run:
                    reason = earlier.reason
                elif read < _EXPLAINED:
                    read += 1
                    reason = reason_of_failure(self._deployment(group), row.task_id, run) or reason
            yield dataclasses.replace(row, reason=reason)

    def run(self, group_id: str, display: Display | None = None) -> Summary:
        """Watch the group until it has ended. Interrupted, the watching ends, and the group goes on."""
        display = display or Display()
        began, states, pause = time.time(), dict[str, str](), min(0.5, self._look / 2)
        group = self.store.group(group_id)
        status = self.status(group_id)
        display.begin(group.name, status.counts)
        try:
            while True:
                _tell(display, states, status.tasks)
                held = bool(self._held.get(group_id))
                self._rerun_held(group)
                if status.group.state not in (PENDING, RUNNING) and not held:
                    break
                # A group of thousands is many requests.
                pause = min(2 * pause, max(self._look, len(status.tasks) / 200))
                time.sleep(pause)
                status = self.status(group_id)
            summary = _summary(status, time.time() - min([began, *(row.started or began for row in status.tasks)]))
            display.end(summary)
            return summary
        except KeyboardInterrupt:
            display.note(f"no longer watched; the run goes on: limbeck status {group_id}, limbeck cancel {group_id}")
            return _summary(status, time.time() - began)
        finally:
            display.close()

    def restart(self, group_id: str) -> None:
        group = self.store.group(group_id)
        deployment = self._deployment(group)
        deployment.check_credentials()
        listed = {task.task_id: task for task in self._copy(group)}
        if not listed:
            raise UserError(f"{group_id} cannot go on, as {_GONE}: limbeck train begins anew")
        self._held[group_id] = {task_id for task_id, task in listed.items() if task.can_run_again}
        held = self._rerun_held(group, listed)
        if held:
            logger.warning(
                f"{held} tasks ended before what they need was done. The queue cannot make them wait again: go on with "
                f"limbeck resume {group_id} --wait, which stays and starts them when it is time (or trigger the config "
                "anew, which reuses what is finished)"
            )
        self.store.update_group(group_id, state=RUNNING)
        self._copy(self.store.group(group_id))

    def _rerun_held(self, group: GroupRow, listed: Mapping[str, Listed] | None = None) -> int:
        """Run again those of the held tasks whose inputs are there; returns how many are still held."""
        held = self._held.get(group.group_id, set())
        if not held:
            return 0
        if listed is None:
            listed = {task.task_id: task for task in read_group(self._deployment(group), group.group_id)}
        deployment, again = self._deployment(group), set[str]()
        for task_id in sorted(held):
            upstream = [
                listed[other] for other in listed[task_id].definition.get("dependencies", []) if other in listed
            ]
            if all(other.status["state"] == "completed" for other in upstream):
                deployment.ask(f"running the task {task_id} again", deployment.queue.rerunTask, task_id)
                again.add(task_id)
            elif any(other.can_run_again and other.task_id not in held for other in upstream):
                again.add(task_id)  # in vain: what it needs failed once more
        held -= again
        return len(held)

    def cancel(self, group_id: str) -> None:
        group = self.store.group(group_id)
        deployment = self._deployment(group)
        deployment.check_credentials()
        queue, what = deployment.queue, f"cancelling the task group {group_id}"
        listed = read_group(self._deployment(group), group.group_id)
        # The action first: it would go on making tasks.
        action = next((task for task in listed if task.task_id == group_id), None)
        if action is not None and action.status["state"] in ("unscheduled", "pending", "running"):
            deployment.ask(f"cancelling the task {group_id}", queue.cancelTask, group_id)
        if any(task.status["taskGroupId"] == group_id for task in listed):
            # A group that could still grow is not cancelled.
            deployment.ask(what, queue.sealTaskGroup, group_id)
            try:
                deployment.ask(what, queue.cancelTaskGroup, group_id)
            except ConflictError:
                time.sleep(self._look / 10)
                deployment.ask(what, queue.sealTaskGroup, group_id)
                deployment.ask(what, queue.cancelTaskGroup, group_id)
        self._held.pop(group_id, None)
        self._copy(group)

    def log_lines(self, task_id: str, follow: bool = False) -> Iterator[str]:
        deployment = self._deployment_of(task_id)
        told = -1
        while True:
            status = self._status(deployment, task_id)
            unresolved = status["state"] in ("unscheduled", "pending", "running")
            started = [run["runId"] for run in status["runs"] if run.get("started") and run["runId"] > told]
            if started:
                told = started[-1]
                yield from log_lines(deployment, task_id, told, self._is_running(deployment, task_id, told), follow)
                if not follow:
                    return
            elif told < 0 and not (follow and unresolved):
                raise UserError(f"{task_id} has no log: it is {status['state']} and has not started yet")
            elif not unresolved:
                return
            else:
                # One that was lost goes on in another run, which has a log of its own.
                time.sleep(self._look)

    def _is_running(self, deployment: Deployment, task_id: str, run: int) -> Callable[[], bool]:
        return lambda: self._status(deployment, task_id)["runs"][run]["state"] == "running"

    def artifacts(self, task_id: str) -> dict[str, str]:
        deployment = self._deployment_of(task_id)
        run, entries = read_artifacts(deployment, task_id)
        return {str(entry["name"]): deployment.artifact_url(task_id, run, entry["name"]) for entry in entries}

    def artifact_sizes(self, task_id: str) -> Mapping[str, int | None]:
        _, entries = read_artifacts(self._deployment_of(task_id), task_id)
        return {str(entry["name"]): entry.get("contentLength") for entry in entries}

    def _status(self, deployment: Deployment, task_id: str) -> Mapping[str, Any]:
        status: Mapping[str, Any] = deployment.ask(f"the task {task_id}", deployment.queue.status, task_id)["status"]
        return status

    @cached_property
    def _current(self) -> Deployment:
        """The deployment of the environment, or else that of config.yml."""
        if os.environ.get(ROOT_URL):
            return self._at(None)
        from taskgraph.config import load_graph_config

        from limbeck_taskgraph.deployment import deployment_of

        return self._at(deployment_of(load_graph_config(str(ROOT))).root_url)

    def _deployment(self, group: GroupRow) -> Deployment:
        return self._at(root_of(group.url or ""))

    def _deployment_of(self, task_id: str) -> Deployment:
        """Where a task of the record is, or one that the index named."""
        row = self.store.find_task(task_id)
        return self._current if row is None else self._deployment(self.store.group(row.group_id))

    def _at(self, root_url: str | None) -> Deployment:
        if (root_url or "") not in self._deployments:
            self._deployments[root_url or ""] = Deployment(root_url)
        return self._deployments[root_url or ""]


def _say(message: str) -> None:
    print(message, flush=True)


def _tell(display: Display, states: dict[str, str], rows: list[TaskRow]) -> None:
    """Tell the display what has changed since the states that it was told last."""
    for row in rows:
        before = states.get(row.task_id, PENDING)
        states[row.task_id] = row.state
        if row.state == before:
            continue
        if row.state == RUNNING or (before == PENDING and row.started):
            display.started(row.label, row.run or 0)
        if row.state != RUNNING:
            seconds = max(0.0, (row.finished or time.time()) - (row.started or row.finished or time.time()))
            display.ended(row.label, row.state, seconds, row.reason)
    running = [row for row in rows if row.state == RUNNING]
    # Their logs are not on this machine.
    shown = [RunningTask(row.label, row.started or time.time(), Path(os.devnull)) for row in running]
    display.refresh(Counter(row.state for row in rows), shown)


def _summary(status: GroupStatus, seconds: float) -> Summary:
    return Summary(
        status.group.group_id,
        status.group.name,
        status.group.state,
        status.counts,
        seconds,
        failed=[(row.label, row.reason or "failed") for row in status.tasks if row.state in (FAILED, CANCELLED)],
        skipped=[(row.label, row.reason or "") for row in status.tasks if row.state == SKIPPED],
    )
