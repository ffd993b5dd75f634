"""Whole trainings on mixed and augmented text: stopped anywhere, they go on as if they had not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline.common.errors import UserError
from pipeline.model.formats import npz
from pipeline.train.train import main

from .conftest import Files, make_pairs, write_rows

OPTIONS = {
    "dim-emb": 32,
    "enc-depth": 1,
    "dec-depth": 1,
    "transformer-heads": 2,
    "transformer-dim-ffn": 64,
    "mini-batch-words": 500,
    "optimizer-delay": 1,
    "sentencepiece-alphas": "0.5",
    "maxi-batch": 8,
    "max-length": 60,
    "valid-freq": "1000u",
    "save-freq": "10u",
    "valid-metrics": "ce-mean-words",
}
# With so few pairs the first stage ends within the updates that are trained below, and so does an epoch.
CURRICULUM = [
    {"mix": {"original": 1, "backtranslated": 1}, "until": "1e of backtranslated"},
    {"mix": {"original": 1}},
]
AUGMENTATION = {"upper-case": 0.2, "remove-end-punct": 0.2, "typos": 0.3, "noise": 0.05, "tags": 0.05}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ...]]:
    folder = tmp_path_factory.mktemp("corpora")
    return {
        name: write_rows(make_pairs(count, count), *(folder / f"{name}.{part}.zst" for part in ("en", "de", "aln")))
        for name, count in (("original", 800), ("backtranslated", 400))
    }


def arguments(
    files: Files, corpora: dict[str, tuple[Path, ...]], folder: Path, after: str, workers: int = 0, **flags: object
) -> list[str]:
    flags = {"curriculum": CURRICULUM, "augmentation": AUGMENTATION, **flags}
    return [
        *("--preset", "student-tiny", "--src", "en", "--trg", "de"),
        *(word for name, paths in corpora.items() for word in ("--corpus", name, *map(str, paths))),
        *("--devset", *map(str, files.devset)),
        *("--src-vocab", str(files.vocabs[0]), "--trg-vocab", str(files.vocabs[1])),
        *("--best-metric", "ce-mean-words", "--options", json.dumps({**OPTIONS, "after": after})),
        *("--output-dir", str(folder / "model"), "--checkpoint-dir", str(folder / "checkpoints")),
        *("--data-workers", str(workers)),
        *(
            word
            for flag, value in flags.items()
            for word in (f"--{flag}", value if isinstance(value, str) else json.dumps(value))
        ),
    ]


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    return npz.load(folder / "model" / "model.npz").state_dict()


def same(one: Path, other: Path) -> bool:
    mine, theirs = parameters(one), parameters(other)
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def test_a_killed_training_goes_on_bit_by_bit(
    files: Files, corpora: dict[str, tuple[Path, ...]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        main(arguments(files, corpora, tmp_path / "straight", "70u", workers=1))
    assert "reading 0.5 original and 0.5 backtranslated until 1 epochs of backtranslated, then original" in caplog.text
    assert "now reading original" in caplog.text
    for part in ("first", "second"):
        checkpoint = "checkpoint-00000010" if part == "first" else "checkpoint-00000050"
        command = arguments(files, corpora, tmp_path / "parts", "70u", workers=1)
        training = subprocess.Popen(
            [sys.executable, "-m", "pipeline.train.train", *command],
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LIMBECK_CPUS": "1"},
        )
        deadline = time.monotonic() + 90
        while not (tmp_path / "parts" / "checkpoints" / checkpoint).exists():
            assert training.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        workers = [pid for pid in children(training.pid) if b"workers" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 1
        training.send_signal(signal.SIGKILL)
        training.wait()
    main(arguments(files, corpora, tmp_path / "parts", "70u"))
    assert same(tmp_path / "straight", tmp_path / "parts")
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_another_curriculum_or_augmentation_is_another_training(
    files: Files, corpora: dict[str, tuple[Path, ...]], tmp_path: Path
) -> None:
    main(arguments(files, corpora, tmp_path, "3u"))
    for flags in ({"augmentation": "none"}, {"curriculum": [{"mix": {"original": 3, "backtranslated": 1}}]}):
        with pytest.raises(UserError, match=next(iter(flags))):
            main(arguments(files, corpora, tmp_path, "5u", **flags))


def test_inline_noise_needs_alignments(
    files: Files, corpora: dict[str, tuple[Path, ...]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unaligned = {name: paths[:2] for name, paths in corpora.items()}
    options = {"options": {**OPTIONS, "after": "2u", "guided-alignment": False}}
    with pytest.raises(UserError, match="tags need word alignments, but the corpus original has none"):
        main(arguments(files, unaligned, tmp_path, "2u", **options))
    main(arguments(files, unaligned, tmp_path, "2u", **options, augmentation="defaults"))
    assert "no inline noise (tags), as the corpus original has no word alignments" in caplog.text
