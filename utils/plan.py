"""Building the plan of a run: which finished tasks are used, which tasks run and why."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from taskgraph.taskgraph import TaskGraph

from limbeck_engines.store import Store
from limbeck_engines.task import DONE
from limbeck_taskgraph.differences import Meaning
from limbeck_taskgraph.reuse import Named, NamedTask, Plan, make_plan
from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.common.errors import UserError
from utils.common import did_you_mean, find_group
from utils.outside import fetched_by

# What a person wants to see at the end, also when all that gathers them is reused.
RESULTS = ("report", "export")
# A task's place in a plan.
REUSED, DOWNLOAD, RUN, NOT_NEEDED = "reused", "download", "run", "not needed"
_COMPARED = 5  # earlier tasks of a label that a new one is compared with


@dataclass(frozen=True)
class Wishes:
    """What the command line asks of the plan, beside the config."""

    no_reuse: bool = False
    force_stages: Sequence[str] = ()
    existing_tasks: Mapping[str, str] = field(default_factory=dict)  # label -> task id
    verify: bool = False  # hash all artifacts, also those that seem untouched


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that `wishes_of` reads."""
    parser.add_argument("--no-reuse", action="store_true", help="run every task anew")
    parser.add_argument(
        "--force-stage", action="append", default=[], metavar="STAGE", help="run this stage and what depends on it anew"
    )
    parser.add_argument(
        "--existing-task",
        action="append",
        default=[],
        metavar="LABEL=TASKID",
        help="use this finished task for that label, whatever it means (may be given several times)",
    )
    parser.add_argument(
        "--verify", action="store_true", help="hash all artifacts to be reused, also those that seem untouched"
    )


def wishes_of(options: argparse.Namespace) -> Wishes:
    """Raises UserError when --existing-task is not LABEL=TASKID."""
    existing = {}
    for given in options.existing_task:
        label, _, task_id = given.partition("=")
        if not label or not task_id:
            raise UserError(
                f"--existing-task {given}: write LABEL=TASKID, such as build-vocab-en-de=VfLPTQDlRJCdpHRkpkQ2mA"
            )
        existing[label] = task_id
    return Wishes(options.no_reuse, options.force_stage, existing, options.verify)


def plan_run(store: Store, graph: TaskGraph, config: TrainingConfig, wishes: Wishes = Wishes()) -> Plan:
    """Decide what runs. The graph's tasks get the digests that they have with the tasks that a person named.

    Raises UserError for a stage, a run, a task or a label that there is not, and for a named task that is not finished.
    """
    dependents = graph.graph.reverse_links_dict()
    targets = [task.label for task in graph if task.kind in RESULTS or not dependents[task.label]]
    _check_stages(graph, wishes.force_stages)
    prefix = config.start_task_prefix

    def fresh(label: str) -> str | None:
        task = graph.tasks[label]
        names = (task.attributes["stage"], task.kind)
        if wishes.no_reuse:
            return "--no-reuse"
        if any(name in wishes.force_stages for name in names):
            return "--force-stage"
        if prefix and any(name.startswith(prefix) for name in (label, *names)):
            return f"start-task-prefix is {prefix}"
        return None

    named = Named(
        existing=_existing(store, graph, {**config.existing_tasks, **wishes.existing_tasks}),
        earlier_runs=_of_earlier_runs(store, config.previous_group_ids),
    )
    return make_plan(graph, targets, StoreHistory(store, wishes.verify), fresh, named)


def place_of(graph: TaskGraph, plan: Plan, label: str) -> str:
    """Whether a task is reused, downloads something, runs or is not needed."""
    if label in plan.reused:
        return REUSED
    if label not in plan.run:
        return NOT_NEEDED
    return DOWNLOAD if fetched_by(graph.tasks[label]) else RUN


def _check_stages(graph: TaskGraph, stages: Sequence[str]) -> None:
    known = sorted({name for task in graph for name in (task.attributes["stage"], task.kind)})
    for stage in stages:
        if stage not in known:
            raise UserError(f"--force-stage: this config has no stage {stage}{did_you_mean(stage, known)}")


def _existing(store: Store, graph: TaskGraph, task_ids: Mapping[str, str]) -> dict[str, NamedTask]:
    found = {}
    for label, task_id in task_ids.items():
        if label not in graph.tasks:
            raise UserError(f"existing-tasks: this config has no task {label}{did_you_mean(label, graph.tasks)}")
        row = store.find_task(task_id)
        if row is None:
            raise UserError(f"existing-tasks: {label}: there is no task {task_id} in {store.layout.root}")
        if row.state not in DONE:
            raise UserError(f"existing-tasks: {label}: {row.label} ({task_id}) cannot be used: it is {row.state}")
        if page := store.group(row.group_id).url:
            raise UserError(f"existing-tasks: {label}: what {task_id} made is not in the runs folder ({page})")
        found[label] = NamedTask(task_id, row.definition["extra"]["limbeck"])
    return found


def _of_earlier_runs(store: Store, group_ids: Sequence[str]) -> dict[str, NamedTask]:
    """The finished tasks of runs by label; those of a later run in the list win."""
    found = {}
    for group_id in group_ids:
        try:
            group = find_group(store, group_id)
        except UserError as error:
            raise UserError(f"previous-group-ids: {error}") from error
        if group.url:
            raise UserError(
                f"previous-group-ids: what {group_id} made is not in the runs folder ({group.url}): name its artifacts "
                "by URL under continuation, or give its group to the engine that has it"
            )
        for label, row in store.run_tasks(group.group_id).items():
            if row.state in DONE:
                found[label] = NamedTask(row.task_id, row.definition["extra"]["limbeck"])
    return found


class StoreHistory:
    """What a runs folder knows of earlier runs."""

    def __init__(self, store: Store, verify: bool) -> None:
        self._store, self._verify = store, verify
        self._damages: dict[str, str | None] = {}

    def finished(self, digest: str) -> list[str]:
        return [row.task_id for row in self._store.completed(digest)]

    def damage(self, task_id: str) -> str | None:
        if task_id not in self._damages:
            self._damages[task_id] = self._store.damage(self._store.task(task_id), self._verify)
        return self._damages[task_id]

    def earlier(self, label: str) -> list[Meaning]:
        return [row.definition["extra"]["limbeck"] for row in self._store.done_by_label(label, _COMPARED)]
