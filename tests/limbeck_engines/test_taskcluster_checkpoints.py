"""Checkpoints of a Taskcluster task outlive its machine: what one run publishes, the next one goes on from."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from taskcluster_place import Place, taskcluster_place
from tiny_model import toy_pairs, vocab_bytes

from limbeck_engines.taskcluster_client import Deployment
from limbeck_engines.taskcluster_sets import Limits, PublishedSets, sets_in
from pipeline.common.corpus import write_columns
from pipeline.common.errors import TransientError
from pipeline.model.formats import npz
from pipeline.train.train import main as train

MODULE = [sys.executable, "-m", "limbeck_engines.taskcluster_checkpoints", "--look", "0.05", "--every", "0"]
# Counts on from its newest checkpoint; a checkpoint for each step appears by a rename. Told to stop, it stops.
TRAINING = """
import os, pathlib, signal, sys, time
folder, last, pause = pathlib.Path(os.environ["LIMBECK_CHECKPOINTS"]), int(sys.argv[1]), float(sys.argv[2])
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
found = sorted(folder.glob("checkpoint-*"))
step = int((found[-1] / "optimizer.pt").read_text()) if found else 0
print("from", step, flush=True)
while step < last and not stop:
    step += 1
    partial = folder / f".checkpoint-{step:08d}"
    partial.mkdir()
    (partial / "model.npz").write_text(f"model {step}")
    (partial / "optimizer.pt").write_text(str(step))
    partial.rename(folder / f"checkpoint-{step:08d}")
    time.sleep(pause)
sys.exit(75 if stop else int(sys.argv[3]))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with taskcluster_place(tmp_path, monkeypatch) as place:
        yield place


class Machine:
    """A worker of one task, in an empty folder, as every new machine has it."""

    def __init__(self, place: Place, task: str) -> None:
        self.place, self.task = place, task
        place.state.claim(task)
        self.run = place.state.statuses[task]["runs"][-1]["runId"]
        self.folder = place.folder / f"machine-{self.run}"

    def start(self, *command: str, options: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        environment = {
            **os.environ,
            "TASKCLUSTER_PROXY_URL": self.place.server.proxy_url,
            "TASK_ID": self.task,
            "RUN_ID": str(self.run),
            "LIMBECK_CHECKPOINTS": str(self.folder),
        }
        words = [*MODULE, *options, "--", *command]
        return subprocess.Popen(
            words,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def train(self, last: int, pause: float = 0.0, code: int = 0) -> "subprocess.Popen[str]":
        return self.start(sys.executable, "-c", TRAINING, str(last), str(pause), str(code))

    def published(self) -> list[str]:
        """The sets that are whole, oldest first."""
        names = [entry["name"] for entry in self.place.state.list_artifacts(self.task, self.run)]
        return [name.split("/")[2].removesuffix(".json") for name in names if name.endswith(".json")]


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def task_of(place: Place) -> str:
    place.recorded_group({"train-ab": ()})
    return place.ids["train-ab"]


def sets(place: Place, task: str, run: int) -> PublishedSets:
    return PublishedSets(Deployment(place.server.proxy_url), task, run)


def write_set(folder: Path, number: int, **files: str) -> Path:
    made = folder / f"checkpoint-{number:08d}"
    made.mkdir(parents=True)
    for name, content in (files or {"model.npz": f"model {number}", "optimizer.pt": str(number)}).items():
        (made / name.replace("_", ".")).write_text(content)
    return made


def test_a_machine_that_vanishes_costs_only_what_was_not_published(place: Place) -> None:
    task = task_of(place)
    first = Machine(place, task)
    running = first.train(1000, pause=0.05)
    wait_for(lambda: len(first.published()) >= 2)
    # The machine is gone: nothing can be said any more.
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate(timeout=60)
    place.state.lose(task)
    published = [int(name.rpartition("-")[2]) for name in first.published()]
    second = Machine(place, task)
    out, err = second.train(published[-1] + 2).communicate(timeout=60)
    reached = int(out.removeprefix("from "))
    assert reached in published[-2:]  # the last one was perhaps on its way
    assert f"going on from checkpoint-{reached:08d}, which run 0 published" in err
    last = published[-1] + 2
    assert (second.folder / f"checkpoint-{last:08d}" / "optimizer.pt").read_text() == str(last)


@pytest.mark.slow
def test_a_real_training_goes_on_as_if_nothing_had_happened(place: Place) -> None:
    """Killed, and continued elsewhere from what was published, it ends with the same parameters, bit by bit."""
    task = task_of(place)
    folder = place.folder

    def command(name: str, checkpoints: str) -> list[str]:
        return train_command(folder, folder / name, checkpoints)

    prepare_training(folder)
    first = Machine(place, task)
    running = first.start(*command("lost", str(first.folder)))
    wait_for(lambda: first.published() or running.poll() is not None)
    assert running.poll() is None, running.communicate()
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate(timeout=60)
    place.state.lose(task)
    second = Machine(place, task)
    again = second.start(*command("model", str(second.folder)))
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert "continuing from update" in err and "which run 0 published" in err
    train(command("straight", str(folder / "straight-checkpoints"))[3:])
    model, straight = (npz.load(folder / name / "model.npz").state_dict() for name in ("model", "straight"))
    assert all(torch.equal(model[name], straight[name]) for name in straight)


def prepare_training(folder: Path) -> None:
    pairs = toy_pairs(300)
    for name, rows in (("train", pairs), ("dev", pairs[:10])):
        with write_columns(folder / f"{name}.en.zst", folder / f"{name}.de.zst") as writer:
            for row in rows:
                writer.write(*row)
    (folder / "vocab.spm").write_bytes(vocab_bytes())


def train_command(folder: Path, model: Path, checkpoints: str) -> list[str]:
    options = {
        "dim-emb": 32,
        "enc-depth": 1,
        "dec-depth": 1,
        "transformer-heads": 2,
        "transformer-dim-ffn": 32,
        "mini-batch-words": 300,
        "optimizer-delay": 1,
        "max-length": 50,
        "after": "30u",
        "save-freq": "4u",
        "valid-freq": "15u",
        "lr-warmup": "10u",
        "guided-alignment": False,
        "precision": "float32",
        "early-stopping": 0,
    }
    return [
        *(sys.executable, "-m", "pipeline.train.train", "--preset", "student-tiny", "--src", "en", "--trg", "de"),
        *("--corpus", "distilled", f"{folder}/train.en.zst", f"{folder}/train.de.zst"),
        *("--devset", f"{folder}/dev.en.zst", f"{folder}/dev.de.zst", "--device", "cpu", "--data-workers", "0"),
        *("--src-vocab", f"{folder}/vocab.spm", "--trg-vocab", f"{folder}/vocab.spm", "--best-metric", "chrf"),
        *("--options", json.dumps(options), "--output-dir", str(model), "--checkpoint-dir", checkpoints),
    ]


def test_a_machine_that_is_taken_away_publishes_its_last_checkpoint(place: Place) -> None:
    task = task_of(place)
    first = Machine(place, task)
    running = first.start(sys.executable, "-c", TRAINING, "1000", "0.2", "0", options=("--every", "3600"))
    wait_for(lambda: len(list(first.folder.glob("checkpoint-*"))) >= 3)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 75, err
    last = max(path.name for path in first.folder.glob("checkpoint-*"))
    assert first.published()[-1] == last
    assert len(first.published()) <= 2  # at most one in an hour, and the last


@pytest.mark.parametrize(("code", "published"), [(0, False), (1, True)])
def test_the_exit_code_is_the_commands_own(place: Place, code: int, published: bool) -> None:
    machine = Machine(place, task_of(place))
    running = machine.start(sys.executable, "-c", TRAINING, "1", "0", str(code), options=("--look", "30"))
    running.communicate(timeout=60)
    assert running.returncode == code
    # Of a task that is done nobody needs a checkpoint; one that failed may be run again.
    assert bool(machine.published()) == published


def test_a_command_that_is_killed_or_missing(place: Place) -> None:
    machine = Machine(place, task_of(place))
    killed = machine.start("sh", "-c", "kill -9 $$")
    killed.communicate(timeout=60)
    assert killed.returncode == 128 + 9
    missing = machine.start("no-such-command")
    _, err = missing.communicate(timeout=60)
    assert missing.returncode == 1 and "error: cannot start no-such-command" in err


def test_sets_that_are_not_whole_are_passed_over(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    task = task_of(place)
    machine = Machine(place, task)
    publisher = sets(place, task, 0)
    for number in (1, 2, 3, 4, 5):
        publisher.publish(write_set(place.folder / "made", number))
    artifacts = place.state.artifacts
    # 5 was never finished, 4 was changed, 3 has lost a file, of 2 the manifest is no manifest.
    del artifacts[task, 0, "public/checkpoint/checkpoint-00000005.json"]
    artifacts[task, 0, "public/checkpoint/checkpoint-00000004/checkpoint-00000004/model.npz"].content = b"MODEL 4"
    del artifacts[task, 0, "public/checkpoint/checkpoint-00000003/checkpoint-00000003/optimizer.pt"]
    artifacts[task, 0, "public/checkpoint/checkpoint-00000002.json"].content = b"<html>"
    place.state.lose(task)
    assert machine.run == 0
    restored = sets(place, task, 1).restore(place.folder / "new")
    assert restored is not None and restored.name == "checkpoint-00000001"
    assert {path.name: path.read_text() for path in restored.iterdir()} == {"model.npz": "model 1", "optimizer.pt": "1"}
    for number, why in ((5, "never finished"), (4, "not what was published"), (3, "404"), (2, "not whole")):
        assert any(f"checkpoint-0000000{number}" in line and why in line for line in caplog.messages), number
    assert [path.name for path in (place.folder / "new").iterdir()] == ["checkpoint-00000001"]


def test_what_lies_beside_a_checkpoint_belongs_to_it(place: Place) -> None:
    task = task_of(place)
    Machine(place, task)
    made = place.folder / "made"
    for number in (1, 2):
        newest = write_set(made, number)
    for name in ("best-chrf-00000001.npz", "train.jsonl", "tensorboard/events.out.1.host", ".hidden"):
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_text(name)
    (made / "warnings.log").touch()
    sets(place, task, 0).publish(newest)
    place.state.lose(task)
    new = place.folder / "new"
    sets(place, task, 1).restore(new)
    assert {path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file()} == {
        "checkpoint-00000002/model.npz",
        "checkpoint-00000002/optimizer.pt",
        "best-chrf-00000001.npz",
        "train.jsonl",
        "warnings.log",
        "tensorboard/events.out.1.host",
    }


def test_the_newest_of_all_runs_is_taken(place: Place) -> None:
    task = task_of(place)
    Machine(place, task)
    sets(place, task, 0).publish(write_set(place.folder / "0", 7))
    place.state.lose(task)
    Machine(place, task)  # ended before it had anything
    place.state.lose(task)
    Machine(place, task)
    sets(place, task, 2).publish(write_set(place.folder / "2", 9))
    place.state.lose(task)
    restored = sets(place, task, 3).restore(place.folder / "new")
    assert restored is not None and restored.name == "checkpoint-00000009"
    # A cache that has as much needs nothing.
    place.server.requests.clear()
    assert sets(place, task, 3).restore(place.folder / "2") is None
    assert not [one for one in place.server.requests if "storage" in one]
    assert sets(place, task, 0).restore(place.folder / "first") is None


def test_a_set_with_a_name_that_leads_elsewhere_is_not_written(place: Place) -> None:
    task = task_of(place)
    Machine(place, task)
    sets(place, task, 0).publish(write_set(place.folder / "made", 1))
    artifact = place.state.artifacts[task, 0, "public/checkpoint/checkpoint-00000001.json"]
    manifest = json.loads(artifact.content or b"")
    manifest["files"][0]["name"] = "../outside"
    artifact.content = json.dumps(manifest).encode()
    place.state.lose(task)
    assert sets(place, task, 1).restore(place.folder / "new") is None
    assert not (place.folder / "outside").exists()


def test_publishing_survives_a_storage_that_fails_for_a_moment(place: Place) -> None:
    task = task_of(place)
    Machine(place, task)
    place.server.fail("PUT /storage", status=500)
    place.server.fail("POST .*artifacts", status=503)
    publisher = sets(place, task, 0)
    publisher.publish(write_set(place.folder / "made", 1))
    expires = place.state.artifacts[task, 0, "public/checkpoint/checkpoint-00000001.json"].request["expires"]
    assert expires < "2098"
    # The same once more is no conflict.
    publisher.publish(place.folder / "made" / "checkpoint-00000001")
    assert [path.name for path in (place.folder / "made").iterdir()] == ["checkpoint-00000001"]


def test_bandwidth_is_bounded(place: Place) -> None:
    task = task_of(place)
    Machine(place, task)
    made = write_set(place.folder / "made", 1, model_npz="x" * 200_000)
    began = time.monotonic()
    PublishedSets(Deployment(place.server.proxy_url), task, 0, Limits(rate=400_000)).publish(made)
    assert time.monotonic() - began > 0.4


def test_artifacts_that_cannot_be_listed_are_no_reason_to_begin_anew(place: Place) -> None:
    task = task_of(place)
    Machine(place, task)
    place.state.lose(task)
    machine = Machine(place, task)
    place.server.fail("/artifacts$", status=403, times=100)
    running = machine.start("sh", "-c", "echo began anew")
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (1, "") and "does not allow the artifacts of run 0" in err


def test_a_storage_that_fails_is_no_reason_to_begin_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(place)
    Machine(place, task)
    sets(place, task, 0).publish(write_set(place.folder / "made", 1))
    place.state.lose(task)
    monkeypatch.setattr("pipeline.common.download.RETRY_DELAYS", (0.0,))
    place.server.fail("GET /storage", status=503, times=100)
    with pytest.raises(TransientError, match="503"):
        sets(place, task, 1).restore(place.folder / "new")
    assert sets_in(place.folder / "new") == []


def test_elsewhere_the_command_just_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TASKCLUSTER_PROXY_URL", "TASKCLUSTER_ROOT_URL", "LIMBECK_CHECKPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TASK_WORKDIR", str(tmp_path))
    done = subprocess.run(
        [*MODULE, "--", "sh", "-c", 'echo "$LIMBECK_CHECKPOINTS"'], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{tmp_path}/checkpoints\n"
    assert (tmp_path / "checkpoints").is_dir() and done.stderr == ""
