"""What an engine is given: tasks, what they take of a machine, the states they go through, and how a group ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.common.errors import EXIT_RETRY

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
    def worker_type(self) -> str:
        """What config.yml calls the machine that it asks for."""
        return str(self.definition.get("workerType", ""))

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
