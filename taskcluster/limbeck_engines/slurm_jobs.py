"""Which Slurm jobs tasks become: arrays of tasks of one kind where dependencies allow it, else one job for each."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Literal

from limbeck_engines.task import Task


@dataclass(frozen=True)
class Dependency:
    """What a job waits for: a job of the same plan (its position), or one that Slurm has already (its id).

    `elements` are those of an array, none for all of it. aftercorr: each element waits for the one of its own index.
    """

    kind: Literal["afterok", "aftercorr", "afterany"]
    job: int | str
    elements: tuple[int, ...] = ()

    def text(self, ids: Mapping[int, str]) -> str:
        """What sbatch's --dependency takes. `ids`: what Slurm calls the plan's jobs."""
        job = ids[self.job] if isinstance(self.job, int) else self.job
        return ":".join([self.kind, *([f"{job}_{element}" for element in self.elements] or [job])])


@dataclass(frozen=True)
class Job:
    """One call of sbatch: a task, or an array of them with an index for each."""

    tasks: tuple[Task, ...]
    indexes: tuple[int, ...]  # empty for a single task
    after: tuple[Dependency, ...]

    @property
    def is_array(self) -> bool:
        return bool(self.indexes)


def plan_jobs(
    tasks: Sequence[Task],
    likeness: Mapping[str, Hashable],
    living: Mapping[str, str],
    twins: Mapping[str, Sequence[str]],
    max_array_size: int,
) -> list[Job]:
    """The jobs of these tasks, each after those that it depends on.

    `likeness`: for each task id what two tasks of one array must have in common; `living`: the Slurm job, or array
    element, of tasks outside of `tasks` that are not done; `twins`: tasks, of these or others, with the same digest,
    after which a task may find its work done.
    """
    plan = _Plan(living, max_array_size)
    for level in _levels(tasks, twins):
        alike: dict[Hashable, list[Task]] = {}
        for task in level:
            alike.setdefault(likeness[task.task_id], []).append(task)
        for members in alike.values():
            plan.add(members, twins)
    return plan.jobs


def _levels(tasks: Sequence[Task], twins: Mapping[str, Sequence[str]]) -> list[list[Task]]:
    """The tasks by the number of steps that must come before them."""
    own = {task.task_id for task in tasks}
    before = {task.task_id: [*task.dependencies, *twins.get(task.task_id, ())] for task in tasks}
    depth: dict[str, int] = {}
    for task_id in TopologicalSorter(before).static_order():
        if task_id in own:
            depth[task_id] = 1 + max((depth.get(other, 0) for other in before[task_id]), default=0)
    levels: list[list[Task]] = [[] for _ in range(max(depth.values(), default=0))]
    for task in tasks:
        levels[depth[task.task_id] - 1].append(task)
    return [level for level in levels if level]


class _Plan:
    def __init__(self, living: Mapping[str, str], max_array_size: int) -> None:
        self.jobs: list[Job] = []
        self._living, self._max_array_size = living, max_array_size
        self._places: dict[str, tuple[int, int | None]] = {}  # task id -> position of its job, index in it

    def add(self, members: list[Task], twins: Mapping[str, Sequence[str]]) -> None:
        """Plan tasks that are alike and do not wait for each other."""
        by_dependencies: dict[frozenset[Dependency], list[Task]] = {}
        for task in members:
            by_dependencies.setdefault(frozenset(self._after(task, twins)), []).append(task)
        alone: list[tuple[Task, frozenset[Dependency]]] = []
        for after, alike in by_dependencies.items():
            if len(alike) == 1:
                alone.append((alike[0], after))
                continue
            for start in range(0, len(alike), self._max_array_size):
                part = alike[start : start + self._max_array_size]
                self._append(part, range(len(part)) if len(part) > 1 else (), after)
        pairs: dict[frozenset[Dependency], list[tuple[int, Task, frozenset[Dependency]]]] = {}
        for task, after in alone:
            index, matched = _by_element(after)
            if index is None:
                self._append([task], (), after)
            else:
                pairs.setdefault(matched, []).append((index, task, after))
        for matched, elements in pairs.items():
            if len(elements) == 1:
                self._append([elements[0][1]], (), elements[0][2])
            else:
                elements.sort(key=lambda element: element[0])
                self._append([task for _, task, _ in elements], [index for index, _, _ in elements], matched)

    def _append(self, tasks: Sequence[Task], indexes: Sequence[int], after: frozenset[Dependency]) -> None:
        ordered = sorted(after, key=lambda each: (each.kind, str(each.job), each.elements))
        for number, task in enumerate(tasks):
            self._places[task.task_id] = (len(self.jobs), indexes[number] if indexes else None)
        self.jobs.append(Job(tuple(tasks), tuple(indexes), tuple(ordered)))

    def _after(self, task: Task, twins: Mapping[str, Sequence[str]]) -> Iterator[Dependency]:
        yield from self._dependencies("afterok", task.dependencies)
        yield from self._dependencies("afterany", twins.get(task.task_id, ()))

    def _dependencies(self, kind: Literal["afterok", "afterany"], task_ids: Sequence[str]) -> Iterator[Dependency]:
        elements: dict[int, set[int]] = {}
        for task_id in dict.fromkeys(task_ids):
            if task_id in self._places:
                position, index = self._places[task_id]
                elements.setdefault(position, set())
                if index is not None:
                    elements[position].add(index)
            elif task_id in self._living:
                yield Dependency(kind, self._living[task_id])
        for position, indexes in elements.items():
            whole = len(indexes) == len(self.jobs[position].indexes)
            yield Dependency(kind, position, () if whole else tuple(sorted(indexes)))


def _by_element(after: frozenset[Dependency]) -> tuple[int | None, frozenset[Dependency]]:
    """The one index that all dependencies on parts of arrays share, and the dependencies with aftercorr for these."""
    parts = [each for each in after if each.elements]
    if not parts or any(each.elements != parts[0].elements or each.kind != "afterok" for each in parts):
        return None, after
    if len(parts[0].elements) != 1:
        return None, after
    whole = [each for each in after if not each.elements]
    return parts[0].elements[0], frozenset([*whole, *(Dependency("aftercorr", each.job) for each in parts)])
