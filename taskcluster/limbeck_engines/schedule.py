"""In which order tasks start: those that the longest chain of other tasks waits for come first."""

import heapq
from collections.abc import Callable, Iterable, Mapping

from limbeck_engines.task import Resources, Task
from pipeline.common.errors import UserError


def path_lengths(tasks: Iterable[Task]) -> dict[str, int]:
    """For each task id, the number of tasks on the longest path from it to the graph's end (1: nothing waits for it).

    Dependencies outside of `tasks` do not count. Raises UserError when tasks depend on each other in a circle.
    """
    by_id = {task.task_id: task for task in tasks}
    waiting = dict.fromkeys(by_id, 0)  # how many dependents are not measured yet
    for task in by_id.values():
        for dependency in set(task.dependencies) & by_id.keys():
            waiting[dependency] += 1
    lengths = dict.fromkeys(by_id, 1)
    measured = [task_id for task_id, count in waiting.items() if count == 0]
    for task_id in measured:  # grows while it is read
        for dependency in set(by_id[task_id].dependencies) & by_id.keys():
            lengths[dependency] = max(lengths[dependency], lengths[task_id] + 1)
            waiting[dependency] -= 1
            if waiting[dependency] == 0:
                measured.append(dependency)
    if len(measured) < len(by_id):
        circle = sorted(by_id[task_id].label for task_id, count in waiting.items() if count > 0)
        raise UserError(f"tasks depend on each other in a circle, among them {', '.join(circle[:5])}")
    return lengths


class ReadyQueue:
    """Tasks that could start, by what they take of a machine and, among equals, by priority.

    A task that fits overtakes one that does not: the machine is kept busy rather than kept free for a large task.
    """

    def __init__(self, priorities: Mapping[str, tuple[int, ...]]) -> None:
        self._priorities = priorities  # by task id; the smallest goes first
        self._queues: dict[Resources, list[tuple[tuple[int, ...], str]]] = {}

    def push(self, task_id: str, resources: Resources) -> None:
        heapq.heappush(self._queues.setdefault(resources, []), (self._priorities[task_id], task_id))

    def pop(self, fits: Callable[[Resources], bool]) -> str | None:
        """The first task by priority among those whose resources fit; None when none does."""
        queues = [queue for resources, queue in self._queues.items() if queue and fits(resources)]
        if not queues:
            return None
        return heapq.heappop(min(queues, key=lambda queue: queue[0]))[1]
