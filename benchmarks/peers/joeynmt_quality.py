"""JoeyNMT's trainer for benchmarks/multi30k.py: train for some minutes, then translate the test set."""

import json
import sys
from pathlib import Path
from typing import Any

import joeynmt.training
import torch
import yaml
from joeynmt.config import load_config
from joeynmt.prediction import test

from peers.joeynmt_trainer import configuration
from peers.tasks import ARCHITECTURES, SpeedTask, cpu_seconds


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(task["threads"])
    folder = Path(task["folder"])
    speed = SpeedTask(
        train=tuple(task["train"]),
        dev=tuple(task["dev"]),
        vocab=task["vocab"],
        batches="",
        architecture=ARCHITECTURES["small"],
        tuned=False,
        threads=task["threads"],
        words=1250,
        sentences=0,
        warm_up=0,
        updates=0,
        folder=task["folder"],
        dropout=0.2,
        learn_rate=1e-3,
    )
    given = configuration(speed)
    for language, path in zip(("en", "de"), task["test"], strict=True):
        (folder / f"test.{language}").symlink_to(path)
    given["data"]["test"] = str(folder / "test")
    given["training"] |= {
        "scheduling": "warmupinversesquareroot",
        "learning_rate_warmup": 600,
        "learning_rate_min": 1e-9,
        "updates": 1_000_000,
        "keep_best_ckpts": 1,
    }
    given["testing"] = {"beam_size": task["beam"], "beam_alpha": 1.0, "batch_size": 32, "batch_type": "sentence"}
    given["testing"]["max_output_length"] = 100
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(given), encoding="utf-8")
    (folder / "model").mkdir()
    step = joeynmt.training.TrainManager._train_step
    end = 60 * task["minutes"] * task["threads"]

    def timed(manager: Any, batch: Any) -> Any:
        if cpu_seconds() >= end:
            manager._save_checkpoint(False, float("nan"))  # latest.ckpt
            raise TimeoutError
        return step(manager, batch)

    joeynmt.training.TrainManager._train_step = timed
    try:
        joeynmt.training.train(rank=0, world_size=None, cfg=load_config(path), skip_test=True)
    except TimeoutError:
        given["testing"]["load_model"] = str((folder / "model" / "latest.ckpt").resolve())
        path.write_text(yaml.safe_dump(given), encoding="utf-8")
        test(load_config(path), output_path=str(folder / "joey"))
    (folder / "joey.test").rename(folder / "hypotheses")


if __name__ == "__main__":
    main()
