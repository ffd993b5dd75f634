import os

import pytest
from engine_graphs import make_task
from hypothesis import given
from hypothesis import strategies as st

from limbeck_engines.machine import Machine, Slots
from limbeck_engines.schedule import ReadyQueue, path_lengths
from limbeck_engines.task import Resources, Task


@st.composite
def graphs(draw: st.DrawFn) -> list[Task]:
    tasks: list[Task] = []
    for number in range(draw(st.integers(1, 12))):
        after = draw(st.lists(st.sampled_from(tasks), unique_by=lambda task: task.task_id)) if tasks else []
        tasks.append(make_task(f"t{number}", after=tuple(after)))
    return draw(st.permutations(tasks))


@given(graphs())
def test_path_lengths_are_one_more_than_the_longest_of_those_that_wait(tasks: list[Task]) -> None:
    lengths = path_lengths(tasks)
    for task in tasks:
        waiting = [lengths[other.task_id] for other in tasks if task.task_id in other.dependencies]
        assert lengths[task.task_id] == 1 + max(waiting, default=0)


def test_a_chain_of_thousands_is_no_deeper_than_a_loop() -> None:
    tasks = [make_task("t0")]
    for number in range(1, 5000):
        tasks.append(make_task(f"t{number}", after=(tasks[-1],)))
    assert path_lengths(tasks)["t0"] == 5000


def test_the_queue_gives_the_first_that_fits() -> None:
    small, large = Resources(1), Resources(4)
    queue = ReadyQueue({"a": (-1, 0), "b": (-2, 1), "c": (-3, 2)})
    queue.push("a", small)
    queue.push("b", small)
    queue.push("c", large)
    free = Slots(Machine(2, 0, ()))
    assert [queue.pop(free.have) for _ in range(3)] == ["b", "a", None]
    assert queue.pop(lambda resources: True) == "c"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 100)), max_size=20))
def test_slots_never_give_more_than_the_machine_has(requests: list[tuple[int, int, int]]) -> None:
    slots = Slots(Machine(4, 150, ("0", "1", "2")))
    taken: list[tuple[Resources, list[str]]] = []
    for cpus, gpus, memory in requests:
        wanted = Resources(cpus, gpus, memory)
        if slots.have(wanted):
            taken.append((wanted, slots.take(wanted)))
        elif taken:
            slots.give_back(*taken.pop(0))
        names = [name for _, held in taken for name in held]
        assert len(names) == len(set(names))
        assert sum(int(held.cpus) for held, _ in taken) <= 4
        assert sum(held.memory for held, _ in taken) <= 150


def test_a_machine_is_measured_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-7")
    machine = Machine.detect()
    assert 1 <= machine.cpus <= (os.cpu_count() or 1) and machine.memory > 1 << 20
    assert machine.gpus == ("2", "GPU-7")
    assert Machine.detect(cpus=3, memory=5, gpus=1) == Machine(3, 5, ("2",))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Machine.detect().gpus == ()
    assert Machine.detect(gpus=2).gpus == ("0", "1")
