"""What an engine is given (tasks) and what it must do with them.

A task is a Taskcluster task definition. Its commands read `$MOZ_FETCHES_DIR` and write `$TASK_WORKDIR/artifacts`; an
engine has only to honour that, in dependency order.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.common.errors import EXIT_RETRY

if TYPE_CHECKING:
    from limbeck_engines.display import Display

PENDING = "pending"
RUNNING = "running"
COMPLETED = "completed"
FAILED = "failed"
SKIPPED = "skipped"  # a task that it depends on failed
CANCELLED = "cancelled"
REUSED = "reused"  # another task of the same digest was completed first; its artifacts stand for this one's
INTERRUPTED = "interrupted"  # of groups only: stopped, or its engine died; its tasks are pending
STATES = (COMPLETED, REUSED, RUNNING, PENDING, FAILED, SKIPPED, CANCELLED)
DONE = (COMPLETED, REUSED)


@dataclass(frozen=True)
class Resources:
    """What a task takes of a machine while it runs. `cpus="all"`: every processor, so nothing beside it."""

    cpus: int | Literal["all"] = 1
    gpus: int = 0
    memory: int = 0  # bytes


@dataclass(frozen=True)
class Task:
    """One task of a rendered graph."""

    task_id: str
    label: str
    definition: dict[str, Any]
    dependencies: tuple[str, ...]  # task ids, of this group or of earlier ones
    digest: str  # hex digest of the task's meaning
    resources: Resources = Resources()

    @property
    def kind(self) -> str:
        return str(self.definition.get("tags", {}).get("kind", ""))

    @property
    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = self.definition.get("payload", {})
        return payload

    @property
    def commands(self) -> list[list[str]]:
        """Argument lists, run one after the other. None of them: the task only gathers others."""
        commands: list[list[str]] = self.payload.get("command", [])
        return commands

    @property
    def retry_codes(self) -> frozenset[int]:
        return frozenset([EXIT_RETRY, *self.payload.get("onExitStatus", {}).get("retry", [])])


@dataclass(frozen=True)
class Summary:
    """How a group ended: tasks by state, and why those that are not done are not."""

    group_id: str
    name: str
    state: str  # of the group: completed, failed, cancelled or interrupted
    counts: Mapping[str, int]
    seconds: float
    failed: list[tuple[str, str]] = field(default_factory=list)  # label, reason
    skipped: list[tuple[str, str]] = field(default_factory=list)  # label, label of the failed task

    @property
    def succeeded(self) -> bool:
        return self.state == COMPLETED


class Engine(ABC):
    """Runs groups of tasks and remembers what became of them. Groups outlive the process that submitted them."""

    @abstractmethod
    def submit(self, group_id: str, name: str, tasks: list[Task], config_text: str) -> None:
        """Record a group of tasks, all or none; nothing runs yet.

        Raises UserError on tasks that could never run: an unknown dependency, a cycle, a malformed payload.
        """

    @abstractmethod
    def run(self, group_id: str, display: "Display | None" = None) -> Summary:
        """Run the group's pending tasks until all that can be done is done, or the engine is told to stop.

        Raises UserError when another process runs this group, or when the engine itself cannot go on (disk full).
        """

    @abstractmethod
    def resume(self, group_id: str, display: "Display | None" = None) -> Summary:
        """Run again what failed, was skipped, cancelled or lost; nothing that is finished."""

    @abstractmethod
    def cancel(self, group_id: str) -> None:
        """Stop a group, from any process, and return when its tasks have stopped."""

    @abstractmethod
    def status(self, group_id: str) -> Any:
        """The group and each of its tasks as they stand now."""

    @abstractmethod
    def log_path(self, task_id: str) -> Path:
        """The log of a task's newest run. Raises UserError when it has not started."""

    @abstractmethod
    def artifact_path(self, task_id: str, name: str) -> Path:
        """An artifact (`public/build/…`) of a completed task. Raises UserError when it is not there."""
