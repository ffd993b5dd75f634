"""Training in several processes, as torchrun starts them, on the processor."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline.model.formats import npz
from pipeline.train.train import main

from .conftest import Files
from .test_train import arguments, records

# Without dropout, which differs from process to process by design.
OPTIONS = {
    "precision": "float32",
    "transformer_dropout": 0,
    "optimizer_delay": 2,
    "mini_batch_words": "2K",
    "valid_freq": "10u",
    "exponential_smoothing": "1e-3",
    "learn_rate": "1e-3",
}

pytestmark = pytest.mark.usefixtures("one_thread")


def start(command: list[str], folder: Path, processes: int = 2) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
            *("-m", "pipeline.train.train", *command),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "LIMBECK_CPUS": "1", "OMP_NUM_THREADS": "1"},
    )


def run(command: list[str], folder: Path, processes: int = 2) -> str:
    process = start(command, folder, processes)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    return output


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    return npz.load(folder / "model" / "model.npz").state_dict()


def curve(folder: Path) -> dict[int, list[float]]:
    names = ("train-cost", "alignment-cost", "gradient-norm", "ce-mean-words", "padding")
    return {int(record["update"]): [float(record[name]) for name in names] for record in records(folder)}  # type: ignore[call-overload, arg-type]


@pytest.mark.parametrize("delay", [1, 2])
def test_two_processes_follow_the_curve_of_one(files: Files, tmp_path: Path, delay: int) -> None:
    """Rows of each micro-batch are shared out with one micro-batch an update, whole micro-batches with two."""
    options = {**OPTIONS, "optimizer_delay": delay}
    main(arguments(files, tmp_path / "one", after="20u", **options))
    output = run(arguments(files, tmp_path / "two", after="20u", **options), tmp_path)
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert one.keys() == two.keys() == {10, 20}
    for update in one:
        assert two[update] == pytest.approx(one[update], rel=1e-4)
    alone, shared = parameters(tmp_path / "one"), parameters(tmp_path / "two")
    # Keys' biases change no attention: their gradients are rounding noise, which Adam blows up to whole steps.
    difference = {name: float((alone[name] - shared[name]).abs().max()) for name in alone if not name.endswith("_bk")}
    assert max(difference.values()) < 1e-4, difference
    chrf = [[record["chrf"] for record in records(tmp_path / name)] for name in ("one", "two")]
    assert chrf[1] == pytest.approx(chrf[0], abs=0.5)
    assert output.count("continuing") == 0 and output.count("validation at update 10") == 1


def test_two_processes_stop_and_go_on_as_if_they_had_not(files: Files, tmp_path: Path) -> None:
    options = {**OPTIONS, "transformer_dropout": 0.1}
    run(arguments(files, tmp_path / "straight", after="14u", **options), tmp_path)
    run(arguments(files, tmp_path / "parts", after="7u", **options), tmp_path)
    assert "continuing from update 7 " in run(arguments(files, tmp_path / "parts", after="14u", **options), tmp_path)
    straight, parts = parameters(tmp_path / "straight"), parameters(tmp_path / "parts")
    assert all(torch.equal(straight[name], parts[name]) for name in straight)
    # One process can go on with what two began.
    main(arguments(files, tmp_path / "parts", after="16u", **options))
    assert [record["update"] for record in records(tmp_path / "parts")][-1] == 16


def test_sigterm_stops_all_processes_with_one_checkpoint(files: Files, tmp_path: Path) -> None:
    command = arguments(
        files, tmp_path, after="100Ku", save_freq="0", save_minutes=60, **{**OPTIONS, "valid_freq": "5u"}
    )
    process = start(command, tmp_path)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "checkpoints").glob("checkpoint-*5")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    newest = max(path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*"))
    log = run(arguments(files, tmp_path, after=f"{int(newest[11:]) + 1}u", **OPTIONS), tmp_path)
    assert "run again with the same folders to continue" in output
    assert f"continuing from update {int(newest[11:])} " in log


def test_a_process_without_a_gpu_says_so(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.common.errors import UserError
    from pipeline.train.distributed import join_processes

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="process 2 of this machine has no GPU: there are 1"):
        join_processes("cuda")


def test_lines_and_records_show_how_training_goes(files: Files, tmp_path: Path) -> None:
    output = run(arguments(files, tmp_path, after="6u", disp_freq="2u", **OPTIONS), tmp_path, processes=1)
    for what in ("cost ", " per word", "words/s", "gradient norm", "padding", "waiting for data", "MFU", "TFLOP/s"):
        assert what in output
    (record,) = [json.loads(line) for line in (tmp_path / "model" / "train.jsonl").read_text().splitlines()]
    assert 0 < record["mfu"] < 1 and 0 <= record["waiting"] < 1
