"""What a plan will take: what is fetched from outside, the disk that it needs, and time, as earlier tasks took it."""

import shutil
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from taskgraph.taskgraph import TaskGraph

from limbeck_engines.artifacts import ArtifactError, read_manifest
from limbeck_engines.store import Store, TaskRow
from limbeck_taskgraph.reuse import Plan
from pipeline.common.errors import TransientError, UserError
from utils.outside import Question, fetched_by

# What is fetched is kept as it came, cleaned, merged, and translated or aligned.
FETCH_FACTOR = 4
_ASKED_AT_ONCE = 8
_COMPARED = 20  # earlier tasks of a kind that an estimate rests on


@dataclass(frozen=True)
class Estimate:
    """What one task of a kind took, as the mean of so many earlier ones."""

    tasks: int
    seconds: float
    size: int  # bytes of artifacts


@dataclass
class Forecast:
    """What the tasks of a plan will take.

    `fetches`: address or data set -> bytes, None when that is not known before; empty when nobody was asked.
    `estimates`: by kind, of those that have run before. `disk` and `free` are in bytes.
    """

    fetches: dict[str, int | None] = field(default_factory=dict)
    estimates: dict[str, Estimate] = field(default_factory=dict)
    disk: int = 0
    free: int = 0

    @property
    def fits(self) -> bool:
        return self.disk <= self.free


def forecast(store: Store, graph: TaskGraph, plan: Plan, probe: bool = True) -> Forecast:
    """Ask for the sizes of all that will be fetched (`probe`), and look up what earlier tasks took.

    Raises UserError naming everything that cannot be fetched.
    """
    counts = Counter(graph.tasks[label].kind for label in plan.run)
    estimates = {kind: found for kind in counts if (found := _estimate(store, kind)) is not None}
    questions: dict[str, Question] = {}
    for label in plan.run:
        questions |= fetched_by(graph.tasks[label])
    fetches = ask_sizes(questions) if probe else {}
    disk = FETCH_FACTOR * sum(found or 0 for found in fetches.values())
    disk += sum(count * estimates[kind].size for kind, count in counts.items() if kind in estimates)
    return Forecast(fetches, estimates, disk, shutil.disk_usage(store.layout.root).free)


def ask_sizes(questions: Mapping[str, Question]) -> dict[str, int | None]:
    """The answer to each question, several asked at once. Raises UserError naming every one that has none."""
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
        answers = dict(zip(questions, threads.map(_ask, questions.items()), strict=True))
    problems = [answer for answer in answers.values() if isinstance(answer, str)]
    if problems:
        raise UserError(
            f"{len(problems)} of {len(questions)} things that this run fetches cannot be had "
            "(--no-probe goes without asking):\n  " + "\n  ".join(problems)
        )
    return {name: answer for name, answer in answers.items() if not isinstance(answer, str)}


def _ask(item: tuple[str, Question]) -> int | str | None:
    """Bytes, None when not known, or as a sentence what is wrong."""
    name, question = item
    try:
        return question()
    except (UserError, TransientError) as error:
        return str(error) if name in str(error) else f"{name}: {error}"


def _estimate(store: Store, kind: str) -> Estimate | None:
    rows = [row for row in store.completed_of_kind(kind, _COMPARED) if row.started and row.finished]
    if not rows:
        return None
    seconds = sum((row.finished or 0.0) - (row.started or 0.0) for row in rows)
    size_of_all = sum(_artifacts_size(store, row) for row in rows)
    return Estimate(len(rows), seconds / len(rows), size_of_all // len(rows))


def _artifacts_size(store: Store, row: TaskRow) -> int:
    folder = store.run_folder(row.task_id)
    try:
        return sum(file["size"] for file in read_manifest(folder)["artifacts"].values()) if folder else 0
    except ArtifactError:
        return 0  # removed since
