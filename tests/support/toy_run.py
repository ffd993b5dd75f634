"""Runs of the whole graph on the made-up pair of languages, by the commands that a person types."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TRAINING = {
    "dim-emb": 64,
    "enc-depth": 2,
    "dec-depth": 1,
    "transformer-heads": 4,
    "transformer-dim-ffn": 128,
    "learn-rate": 0.003,
    "lr-warmup": "100u",
    "mini-batch-words": 1500,
    "valid-freq": "100u",
    "early-stopping": 5,
    "exponential-smoothing": 0.01,
    "optimizer-delay": 1,
    "label-smoothing": 0.1,
    "transformer-dropout": 0.0,
}


def toy_config(folder: Path, updates: int, mono: bool) -> dict[str, Any]:
    training = {**TRAINING, "after": f"{updates}u"}
    datasets = {
        "train": [f"file_{folder}/train.[LANG].zst"],
        "devtest": [f"file_{folder}/dev.[LANG].zst"],
        "test": [f"file_{folder}/test.[LANG].zst"],
    }
    if mono:
        datasets |= {"mono-src": [f"file_{folder}/mono.[LANG].zst"], "mono-trg": [f"file_{folder}/mono.[LANG].zst"]}
    return {
        "experiment": {
            "name": "toy",
            "src": "en",
            "trg": "de",
            "spm-vocab-size": 400,
            "augmentation": "none",
            "evaluation": {"speed-seconds": 0.5},
            "cleaning": {"default": {"language": False}},
        },
        "datasets": datasets,
        "marian-args": {
            "training-teacher": training,
            "training-backward": training,
            "training-student": {**training, "dec-depth": 1, "enc-depth": 2},
            "training-student-finetuned": {"mini-batch-words": 1500, "valid-freq": "20u", "after": "40u"},
            "decoding-teacher": {"beam-size": 2},
            "decoding-backward": {"beam-size": 1},
        },
        "taskcluster": {"split-chunks": 2},
    }


def limbeck(*arguments: str | Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "utils.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def artifacts_of(runs: Path, label: str) -> Path:
    done = limbeck("artifacts", label, "--runs", runs, "--folder")
    return Path(done.stdout.strip())
