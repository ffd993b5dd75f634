import json
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.common.errors import TransientError, UserError
from pipeline.common.files import write_lines
from pipeline.model.formats import npz
from pipeline.train.checkpoint import newest_checkpoint
from pipeline.train.train import main

from .conftest import Files, write_rows

TINY = {
    "dim-emb": 64,
    "enc-depth": 1,
    "dec-depth": 1,
    "transformer-heads": 4,
    "transformer-dim-ffn": 128,
    "learn-rate": "4e-3",
    "lr-warmup": "30u",
    "lr-decay-inv-sqrt": "100u",
    "mini-batch-words": "1K",
    "optimizer-delay": 1,
    "sentencepiece-alphas": "0.5",
    "max-length": 60,
    "valid-freq": "100u",
    "save-freq": "100u",
}

pytestmark = pytest.mark.usefixtures("one_thread")


def arguments(files: Files, folder: Path, preset: str = "student-tiny", **options: object) -> list[str]:
    given = {**TINY, **{name.replace("_", "-"): value for name, value in options.items()}}
    return [
        *("--preset", preset, "--src", "en", "--trg", "de"),
        *("--corpus", "distilled", *map(str, files.corpus)),
        *("--devset", *map(str, files.devset)),
        *("--src-vocab", str(files.vocabs[0]), "--trg-vocab", str(files.vocabs[1])),
        *("--best-metric", "chrf", "--options", json.dumps(given)),
        *("--output-dir", str(folder / "model"), "--checkpoint-dir", str(folder / "checkpoints")),
    ]


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "model" / "train.jsonl").read_text().splitlines()]


def test_a_student_learns_the_rule_and_leaves_a_whole_model_directory(files: Files, tmp_path: Path) -> None:
    main(arguments(files, tmp_path, after="180u", valid_freq="90u", save_freq="90u"))
    output = tmp_path / "model"
    name = "final.model.npz.best-chrf.npz"
    assert {path.name for path in output.iterdir()} == {
        name,
        f"{name}.decoder.yml",
        "vocab.en.spm",
        "vocab.de.spm",
        "train.jsonl",
        "tensorboard",
        "model.npz",
        "optimizer.pt",
        "progress.yml",
    }
    first, second = records(tmp_path)
    assert (first["update"], second["update"]) == (90, 180)
    assert second["chrf"] > 70  # type: ignore[operator]
    assert second["best"] and second["stalled"] == 0
    assert {"epoch", "seconds", "train-cost", "alignment-cost", "lr", "words-per-second", "padding"} <= second.keys()
    assert second["padding"] < 0.08  # type: ignore[operator]
    assert second["alignment-cost"] < first["alignment-cost"] / 2  # type: ignore[operator]
    decoder = yaml.safe_load((output / f"{name}.decoder.yml").read_text())
    assert (decoder["models"], decoder["vocabs"]) == ([name], ["vocab.en.spm", "vocab.de.spm"])
    config = npz.load_config(output / name)
    assert config.tied_embeddings and not config.tied_embeddings_all
    assert list((output / "tensorboard").iterdir())
    assert {path.name for path in (tmp_path / "checkpoints").glob("[!.]*")} == {
        "best-chrf-00000090.npz",
        "best-chrf-00000180.npz",
        "checkpoint-00000090",
        "checkpoint-00000180",
        "tensorboard",
        "train.jsonl",
    }


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    return npz.load(folder / "model" / "model.npz").state_dict()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stopping_and_continuing_changes_nothing_bit_by_bit(files: Files, tmp_path: Path, precision: str) -> None:
    options = {"precision": precision, "transformer_dropout": 0.1, "optimizer_delay": 2, "valid_freq": "10u"}
    main(arguments(files, tmp_path / "straight", after="63u", **options))
    main(arguments(files, tmp_path / "parts", after="13u", **options))
    main(arguments(files, tmp_path / "parts", after="63u", **options))
    straight, parts = parameters(tmp_path / "straight"), parameters(tmp_path / "parts")
    assert all(torch.equal(straight[name], parts[name]) for name in straight)
    smoothed = [torch.load(tmp_path / part / "model/optimizer.pt")["smoothed"] for part in ("straight", "parts")]
    assert all(torch.equal(smoothed[0][name], smoothed[1][name]) for name in straight)
    chrf = [[(r["update"], r["chrf"]) for r in records(tmp_path / part)] for part in ("straight", "parts")]
    assert chrf[0] == [entry for entry in chrf[1] if entry[0] != 13]


class Process:
    """A training in a process of its own, whose log can be waited for."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.train.train", *command],
                stderr=file,
                env={**os.environ, "LIMBECK_CPUS": "1"},
            )

    def wait_for(self, path: Path, pattern: str) -> None:
        deadline = time.monotonic() + 60
        while not list(path.glob(pattern)):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_killed_training_continues_from_its_checkpoint(files: Files, tmp_path: Path) -> None:
    command = arguments(files, tmp_path, after="40u", save_freq="5u", valid_freq="20u", precision="float32")
    killed = Process(command, tmp_path / "killed.log")
    killed.wait_for(tmp_path / "checkpoints", "checkpoint-*5")
    killed.process.kill()
    killed.process.wait()
    checkpoint = newest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    resumed_at = int(checkpoint.name.removeprefix("checkpoint-"))
    assert 5 <= resumed_at < 40

    # As if it had been killed while it wrote the next one.
    shutil.copytree(checkpoint, tmp_path / "checkpoints" / f".checkpoint-{resumed_at + 5:08d}.123")
    again = Process(command, tmp_path / "again.log")
    assert again.process.wait(timeout=120) == 0
    log = (tmp_path / "again.log").read_text()
    assert f"continuing from update {resumed_at} " in log
    assert "a checkpoint that was never finished" in log

    main(arguments(files, tmp_path / "straight", after="40u", save_freq="5u", valid_freq="20u", precision="float32"))
    straight, killed_once = parameters(tmp_path / "straight"), parameters(tmp_path)
    assert all(torch.equal(straight[name], killed_once[name]) for name in straight)


def test_sigterm_saves_a_checkpoint_and_asks_for_a_retry(files: Files, tmp_path: Path) -> None:
    command = arguments(files, tmp_path, after="100Ku", save_freq="0", save_minutes=60, valid_freq="8u")
    running = Process(command, tmp_path / "log")
    running.wait_for(tmp_path / "checkpoints", "checkpoint-*8")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=60) == 75
    assert "run again with the same folders to continue" in (tmp_path / "log").read_text()
    assert newest_checkpoint(tmp_path / "checkpoints") is not None


def test_early_stopping_counts_validations_without_improvement(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        main(arguments(files, tmp_path, learn_rate="1e-12", valid_freq="1u", early_stopping=2, exponential_smoothing=0))
    assert [record["stalled"] for record in records(tmp_path)] == [0, 1, 2]
    assert "early stopping, chrf stalled 2 times" in caplog.text
    # Run again, it is still at its end.
    main(arguments(files, tmp_path, learn_rate="1e-12", valid_freq="1u", early_stopping=2, exponential_smoothing=0))
    assert len(records(tmp_path)) == 3


def test_a_diverging_training_says_so_and_keeps_its_checkpoint(files: Files, tmp_path: Path) -> None:
    options = {"save_freq": "1u", "after": "50u", "lr_warmup": 0}
    with pytest.raises(UserError, match=r"training cost is not finite at update \d+ .*: lower learn-rate"):
        main(arguments(files, tmp_path, learn_rate="1e38", **options))
    assert newest_checkpoint(tmp_path / "checkpoints") is not None


def test_the_same_vocabulary_on_both_sides_ties_all_embeddings(files: Files, tmp_path: Path) -> None:
    command = arguments(Files(files.corpus, files.devset, (files.vocabs[0],) * 2), tmp_path, after="2u")
    main(command)
    assert npz.load_config(tmp_path / "model" / "model.npz").tied_embeddings_all


def test_a_checkpoint_of_another_training_is_refused_with_the_difference(files: Files, tmp_path: Path) -> None:
    main(arguments(files, tmp_path, after="2u"))
    with pytest.raises(UserError, match="dim-emb is 32 here but 64 there"):
        main(arguments(files, tmp_path, after="4u", dim_emb=32))
    with pytest.raises(UserError, match="max-length is 50 here but 60 there"):
        main(arguments(files, tmp_path, after="4u", max_length=50))
    swapped = Files(files.corpus, files.devset, (files.vocabs[1], files.vocabs[0]))
    with pytest.raises(UserError, match="src-vocab is"):
        main(arguments(swapped, tmp_path, after="4u"))


@pytest.mark.parametrize(
    ("file", "damage", "problem"),
    [
        ("optimizer.pt", lambda old: old[: len(old) // 2], r"optimizer\.pt changed after being written"),
        ("model.npz", lambda old: old[:5000] + bytes([old[5000] ^ 1]) + old[5001:], r"model\.npz changed"),
        ("progress.yml", lambda old: b"state: [", r"progress\.yml cannot be read"),
        ("model.npz", None, r"it has no model\.npz"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_passed_over(
    files: Files,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    file: str,
    damage: Callable[[bytes], bytes] | None,
    problem: str,
) -> None:
    options = {"save_freq": "2u", "precision": "float32", "valid_freq": "100u"}
    main(arguments(files, tmp_path, after="4u", **options))
    path = tmp_path / "checkpoints" / "checkpoint-00000004" / file
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.INFO):
        main(arguments(files, tmp_path, after="6u", **options))
    assert re.search(rf"passing over .*checkpoint-00000004, which is damaged: .*{problem}", caplog.text)
    assert "continuing from update 2 " in caplog.text
    main(arguments(files, tmp_path / "straight", after="6u", **options))
    straight, mended = parameters(tmp_path / "straight"), parameters(tmp_path)
    assert all(torch.equal(straight[name], mended[name]) for name in straight)


def test_training_does_not_begin_anew_when_every_checkpoint_is_damaged(files: Files, tmp_path: Path) -> None:
    main(arguments(files, tmp_path, after="2u"))
    (tmp_path / "checkpoints" / "checkpoint-00000002" / "model.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole \(checkpoint-00000002\): restore one"):
        main(arguments(files, tmp_path, after="4u"))


def test_nothing_is_trained_on_bad_input(files: Files, tmp_path: Path) -> None:
    with write_lines(tmp_path / "empty.zst"):
        pass
    empty = tmp_path / "empty.zst"
    with pytest.raises(UserError, match="the devset is empty"):
        main(arguments(Files(files.corpus, (empty, empty), files.vocabs), tmp_path))
    with pytest.raises(UserError, match="corpus distilled is empty"):
        main(arguments(Files((empty, empty, empty), files.devset, files.vocabs), tmp_path))
    with pytest.raises(UserError, match="guided-alignment needs word alignments for the corpus distilled"):
        main(arguments(Files(files.corpus[:2], files.devset, files.vocabs), tmp_path))
    with pytest.raises(UserError, match="is not a SentencePiece model"):
        main(arguments(Files(files.corpus, files.devset, (files.corpus[0], files.vocabs[1])), tmp_path))
    with pytest.raises(UserError, match="did you mean learn-rate"):
        main(arguments(files, tmp_path, lern_rate=1))
    uneven = write_rows([("a", "A", "0-0")], *(tmp_path / f"uneven.{name}" for name in ("en", "de")))
    with pytest.raises(UserError, match="equal length"):
        main(arguments(Files((*uneven, files.corpus[2]), files.devset, files.vocabs), tmp_path))
    assert not (tmp_path / "model").exists()


def test_a_gpu_that_is_not_there_is_not_replaced_by_the_processor(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="a GPU is asked for by --device"):
        main([*arguments(files, tmp_path), "--device", "cuda"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES=0"):
        main(arguments(files, tmp_path))


def test_ctrl_c_and_sigterm_are_told_apart(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.train import train

    def signalled(number: int) -> None:
        def step(self: object, *_: object) -> tuple[dict[str, float], float]:
            os.kill(os.getpid(), number)
            return {"cost": 0.0}, 0.0

        monkeypatch.setattr(train.Trainer, "_step", step)

    signalled(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        main(arguments(files, tmp_path))
    signalled(signal.SIGTERM)
    with pytest.raises(TransientError, match="stopped by SIGTERM"):
        main(arguments(files, tmp_path))


def test_an_overflow_of_scaled_losses_lowers_the_scale_and_leaves_the_update_out(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scaling is float16's, which only GPUs train in: here it is switched on in float32, and gradients overflow."""
    from pipeline.train.compute import Compute
    from pipeline.train.train import Trainer

    gradients = Trainer._gradients
    overflows = iter([True] * 3)

    def overflowing(self: Trainer, update: object) -> object:
        costs = gradients(self, update)  # type: ignore[arg-type]
        if next(overflows, False):
            self.model.get_parameter("encoder_l1_ffn_W1").grad[0, 0] = math.inf  # type: ignore[index]
        return costs

    options = {"precision": "float32", "after": "30u", "valid_freq": "30u", "transformer_dropout": 0}
    main(arguments(files, tmp_path / "exact", **options))
    monkeypatch.setattr(Trainer, "_gradients", overflowing)
    with pytest.raises(UserError, match=r"not finite at update 1 .*gradient norm inf"):
        main(arguments(files, tmp_path / "unscaled", **options))
    overflows = iter([True] * 3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    monkeypatch.setattr(Compute, "scaler", lambda self: scaler)
    main(arguments(files, tmp_path / "scaled", **options))
    assert scaler.get_scale() == 2.0**13
    assert torch.load(tmp_path / "scaled" / "model" / "optimizer.pt")["scaler"]["scale"] == 2.0**13
    (scaled,), (exact,) = records(tmp_path / "scaled"), records(tmp_path / "exact")
    assert scaled["ce-mean-words"] == pytest.approx(exact["ce-mean-words"], rel=0.2)


def test_float16_is_not_computed_on_a_processor(files: Files, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="precision float16 is for GPUs"):
        main(arguments(files, tmp_path, precision="float16"))


def test_profile_leaves_a_trace_of_a_few_updates(files: Files, tmp_path: Path) -> None:
    main([*arguments(files, tmp_path, after="20u"), "--profile"])
    trace = json.loads((tmp_path / "model" / "profile.json").read_text())
    names = {event["name"] for event in trace["traceEvents"] if "name" in event}
    assert any("embedding" in name for name in names)


@pytest.mark.slow
def test_a_compiled_model_learns_the_same(files: Files, tmp_path: Path) -> None:
    options = {"precision": "float32", "after": "6u", "valid_freq": "6u"}
    main(arguments(files, tmp_path / "eager", **options))
    main(arguments(files, tmp_path / "compiled", compile=True, **options))
    (eager,), (compiled,) = records(tmp_path / "eager"), records(tmp_path / "compiled")
    assert compiled["train-cost"] == pytest.approx(eager["train-cost"], rel=1e-4)
