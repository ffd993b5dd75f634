"""What an engine must do with tasks.

A task is a Taskcluster task definition. Its commands read `$MOZ_FETCHES_DIR` and write `$TASK_WORKDIR/artifacts`; an
engine has only to honour that, in dependency order.
"""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from limbeck_engines.store import GroupRow, Store, TaskRow
from limbeck_engines.task import Summary, Task

if TYPE_CHECKING:
    from taskgraph.taskgraph import TaskGraph

    from limbeck_engines.display import Display
    from limbeck_taskgraph.reuse import Plan
    from limbeck_taskgraph.training_config import TrainingConfig


@dataclass(frozen=True)
class GroupStatus:
    """A group and its tasks, in the order they were submitted in. `counts`: tasks by state."""

    group: GroupRow
    tasks: list[TaskRow]
    counts: Mapping[str, int]


class Engine(ABC):
    """Runs groups of tasks. Groups outlive the process that submitted them.

    Every engine keeps the record of its groups in the runs folder (`store`), so that all commands find the runs of
    all engines in one place; how tasks become processes, and where, is what engines differ in.
    """

    # Whether tasks run only while a process is in `run`. Where not, they go on by themselves, and `run` only watches.
    attended = True
    # Whether tasks see the files of this machine, and leave their artifacts in the runs folder.
    shares_files = True

    def __init__(self, runs_dir: Path) -> None:
        self.store = Store(runs_dir)

    @classmethod  # noqa: B027 (an engine without flags needs none)
    def add_arguments(cls, parser: "argparse._ActionsContainer") -> None:
        """The flags of this engine, for the command line that submits."""

    @classmethod
    def from_options(cls, runs_dir: Path, options: argparse.Namespace) -> Self:
        """The engine that the command line asks for. Raises UserError when it cannot be had."""
        return cls(runs_dir)

    def plan(self, graph: "TaskGraph", config: "TrainingConfig") -> "Plan | None":
        """What will be reused and what will run, where the engine itself knows that; None: see the runs folder."""
        return None

    @abstractmethod
    def submit(self, group_id: str, name: str, tasks: list[Task], config_text: str) -> str:
        """Record a group of tasks and hand it over, all or none; returns its id: the one given, or the engine's own.

        `config_text` is the training config that they come from, for the record, or for an engine that makes the tasks
        itself.

        Raises UserError on tasks that could never run: an unknown dependency, a cycle, a malformed payload.
        """

    @abstractmethod
    def run(self, group_id: str, display: "Display | None" = None) -> Summary:
        """Stay with the group until all that can be done is done, or until stopped.

        Raises UserError when the engine cannot go on (disk full), or when another process runs an attended group.
        """

    @abstractmethod
    def restart(self, group_id: str) -> None:
        """Hand over again what failed, was skipped, cancelled or lost; nothing that is finished."""

    def resume(self, group_id: str, display: "Display | None" = None) -> Summary:
        """Restart a group and stay with it."""
        self.restart(group_id)
        return self.run(group_id, display)

    @abstractmethod
    def cancel(self, group_id: str) -> None:
        """Stop a group, from any process, and return when its tasks have stopped."""

    @abstractmethod
    def status(self, group_id: str) -> GroupStatus:
        """The group and each of its tasks as they stand now."""

    @abstractmethod
    def log_lines(self, task_id: str, follow: bool = False) -> Iterator[str]:
        """The log of a task's newest run, line by line; with `follow` until the task ends.

        Raises UserError when it has not started.
        """

    @abstractmethod
    def artifacts(self, task_id: str) -> Mapping[str, Path | str]:
        """The artifacts (`public/build/…`) of a completed task by name: the path of each, or its URL.

        Raises UserError when it is not completed.
        """

    def artifact_sizes(self, task_id: str) -> Mapping[str, int | None]:
        """Bytes of the artifacts of a completed task by name, None where that is not known before one is fetched."""
        return {
            name: place.stat().st_size if isinstance(place, Path) else None
            for name, place in self.artifacts(task_id).items()
        }
