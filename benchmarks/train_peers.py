"""Speed of the whole trainer beside other trainers: target tokens per second of processor time.

All train the same architecture on the same sentences, about --words target positions an update, with dropout, label
smoothing 0.1, clipping and Adam, each in a process of its own with the same number of threads (LIMBECK_CPUS, default
1). Ours is `python -m pipeline.train.train`, reading text. Hugging Face's plain loop gets batches packed like ours,
ready; Seq2SeqTrainer, JoeyNMT and Marian make their own of the same sentences. Peers are measured out of the box and
with the settings that our trainer chooses by itself: bfloat16, attention by plain products, fused Adam, memory that is
kept.

Rates count user and system time between two updates, so start-up is left out, and neither data threads nor page faults
are. Rounds are interleaved and the median is taken: on a busy machine all are slowed alike. Peers are found in
LIMBECK_PEERS (a Python with `make bench-peers`'s packages) and LIMBECK_PYMARIAN (the program pymarian).
"""

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
import yaml
from peers import marian_trainer
from peers.tasks import ARCHITECTURES, Measurement, SpeedTask, running_cpu_seconds

from pipeline.common.corpus import read_parallel
from pipeline.train.batches import Pool
from pipeline.train.ragged import Ragged

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = """example:
  LIMBECK_DATA=corpora LIMBECK_PEERS=.venv-peers/bin/python python benchmarks/train_peers.py --rounds 3
"""
MAX_LENGTH = 100  # pieces; longer pairs are left out of the corpus, as every trainer would leave them out
POOL_UPDATES = 32  # of the first pool of sentences that our trainer packs into batches


@dataclass(frozen=True)
class Contender:
    """`bar` is how many times faster than it our trainer means to be."""

    name: str
    bar: float | None
    measure: Callable[[SpeedTask], Measurement]
    tuned: bool = False
    missing: str = ""  # why it cannot be measured here


def prepare(data: Path, folder: Path, pairs: int, words: int) -> tuple[dict[str, object], float]:
    """A corpus of real sentences evenly drawn from en-de/train, its vocabulary, and ready batches of it.

    Returns what all tasks share, and the mean number of target pieces.
    """
    sides = [data / "en-de" / f"train.{language}.zst" for language in ("en", "de")]
    vocab = folder / "vocab.spm"
    if not vocab.exists():
        outputs = ["--output-src", str(vocab), "--output-trg", str(folder / "vocab.copy.spm")]
        command = [*(sys.executable, "-m", "pipeline.vocab.build", "--src", "en", "--trg", "de", "--corpus-src")]
        command += [str(sides[0]), "--corpus-trg", str(sides[1]), "--vocab-size", "8000", "--sample-size", "200000"]
        subprocess.run([*command, *outputs], check=True, cwd=ROOT)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(vocab))
    total = sum(1 for _ in read_parallel(*sides))
    chosen = list(itertools.islice(read_parallel(*sides), 0, None, max(1, total // pairs)))
    ids = [[[*line, 0] for line in processor.encode([pair[side] for pair in chosen])] for side in (0, 1)]
    kept = [row for row in range(len(chosen)) if all(1 < len(side[row]) <= MAX_LENGTH for side in ids)]
    files = {"train": [folder / f"train.{language}" for language in ("en", "de")]}
    files["dev"] = [folder / f"dev.{language}" for language in ("en", "de")]
    for side in (0, 1):
        lines = [chosen[row][side] for row in kept]
        files["train"][side].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        files["dev"][side].write_text("".join(f"{line}\n" for line in lines[:20]), encoding="utf-8")
    # A pool as large as the first one that our trainer packs: in larger ones, batches have less padding.
    drawn, size = [], 0
    for row in np.random.default_rng(1).permutation(kept).tolist():
        drawn.append(row)
        size += max(len(ids[0][row]), len(ids[1][row]))
        if size >= POOL_UPDATES * words:
            break
    pool = Pool(*(Ragged.of([side[row] for row in drawn]) for side in ids), None)
    packed = pool.pack(words)
    stored = {}
    for number, place in enumerate(np.random.default_rng(2).permutation(len(packed))):
        batch = pool.batch(packed[place])
        for name in ("src", "src_mask", "trg", "trg_mask"):
            stored[f"{name}_{number}"] = getattr(batch, name).numpy()
    np.savez(folder / "batches.npz", **stored)
    mean = float(np.mean([len(ids[1][row]) for row in kept]))
    shared = {name: (str(found[0]), str(found[1])) for name, found in files.items()}
    return {**shared, "vocab": str(vocab), "batches": str(folder / "batches.npz")}, mean


def ours(task: SpeedTask) -> Measurement:
    """The trainer's command. The measured updates lie between the checkpoint that a validation on 20 sentences ends
    with and the line that tells of the last update, hence as many warm up; tokens are those of the checkpoints.
    """
    folder, architecture = Path(task.folder), task.architecture
    given = {
        "enc-depth": architecture.enc_depth,
        "dec-depth": architecture.dec_depth,
        "dim-emb": architecture.width,
        "transformer-dim-ffn": architecture.ffn,
        "transformer-heads": architecture.heads,
        "transformer-dropout": task.dropout,
        "label-smoothing": task.label_smoothing,
        "clip-norm": task.clip_norm,
        "learn-rate": task.learn_rate,
        "exponential-smoothing": 0,
        "guided-alignment": False,
        "sentencepiece-alphas": [],
        "max-length": 100,
        "mini-batch-words": task.words,
        "optimizer-delay": 1,
        "valid-freq": task.updates,
        "disp-freq": 1,
        "after-batches": 2 * task.updates,
        "early-stopping": 0,
        "valid-metrics": ["ce-mean-words"],
        "save-freq": 1_000_000,
        "save-minutes": 1_000_000,
    }
    command = [
        *(sys.executable, "-m", "pipeline.train.train", "--preset", "student-tiny", "--src", "en", "--trg", "de"),
        *("--corpus", "original", *task.train, "--devset", *task.dev, "--best-metric", "ce-mean-words"),
        *("--src-vocab", task.vocab, "--trg-vocab", task.vocab, "--options", json.dumps(given), "--device", "cpu"),
        *("--output-dir", str(folder / "model"), "--checkpoint-dir", str(folder / "checkpoints")),
    ]
    environment = {**os.environ, "LIMBECK_CPUS": str(task.threads), "OMP_NUM_THREADS": str(task.threads)}
    begun = folder / "checkpoints" / f"checkpoint-{task.updates:08d}"
    marks: list[tuple[float, float]] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stderr is not None
        log = []
        for line in process.stderr:
            log.append(line)
            if f"validation at update {task.updates:,}:" in line:
                while not begun.exists() and process.poll() is None:
                    time.sleep(0.01)
            elif f"training: update {2 * task.updates:,}," not in line:
                continue
            marks.append((running_cpu_seconds(process.pid), time.monotonic()))
    if process.returncode or len(marks) != 2:
        raise ValueError(f"our trainer ended early:\n{''.join(log[-20:])}")
    progress = [path / "progress.yml" for path in sorted(begun.parent.glob("checkpoint-*"))]
    before, after = (yaml.safe_load(path.read_text("utf-8"))["state"]["progress"]["tokens"] for path in progress)
    (cpu, wall), (cpu_end, wall_end) = marks[0], marks[1]
    return Measurement(after - before, cpu_end - cpu, wall_end - wall)


def environment(task: SpeedTask) -> dict[str, str]:
    """A peer's environment: as many threads as ours, tuned also what our trainer tells glibc's allocator."""
    threads = {name: str(task.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    kept = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_TOP_PAD_": str(1 << 28)}
    path = {"PYTHONPATH": str(ROOT / "benchmarks"), "CUDA_VISIBLE_DEVICES": ""}
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **threads, **path, **quiet, **(kept if task.tuned else {})}


def in_python(python: Path, module: str) -> Callable[[SpeedTask], Measurement]:
    """Measures a module of benchmarks/peers in the peers' Python."""

    def measure(task: SpeedTask) -> Measurement:
        path = Path(task.folder) / "task.json"
        task.save(path)
        command = [str(python), "-m", f"peers.{module}", str(path)]
        ran = subprocess.run(command, env=environment(task), capture_output=True, text=True)
        return Measurement.find(ran.stdout + ("" if Measurement.is_in(ran.stdout) else ran.stderr))

    return measure


def find_contenders(python: Path | None, pymarian: Path | None) -> list[Contender]:
    """Everybody to measure, us first; those that are not installed say so."""
    found = [Contender("limbeck", None, ours)]
    peers = [
        ("Hugging Face loop", "huggingface_loop", "transformers", 3.0, 1.2),
        ("Hugging Face Seq2SeqTrainer", "huggingface_trainer", "accelerate", 3.0, None),
        ("JoeyNMT", "joeynmt_trainer", "joeynmt", 3.0, None),
    ]
    for name, module, package, bar, tuned_bar in peers:
        missing = ""
        if python is None or not python.exists():
            missing = "LIMBECK_PEERS names no Python: make bench-peers"
        elif subprocess.run([str(python), "-c", f"import {package}"], capture_output=True).returncode:
            missing = f"{python} cannot import {package}"
        measure = in_python(python or Path(), module)
        found.append(Contender(f"{name}, out of the box", bar, measure, missing=missing))
        found.append(Contender(f"{name}, our settings", tuned_bar, measure, tuned=True, missing=missing))
    missing = (
        "" if pymarian is not None and pymarian.exists() else "LIMBECK_PYMARIAN does not name the program pymarian"
    )

    def marian(task: SpeedTask) -> Measurement:
        assert pymarian is not None
        return marian_trainer.measure(task, pymarian, environment(task))

    return [*found, Contender("Marian (pymarian train)", 4.0, marian, missing=missing)]


def report(contenders: list[Contender], results: dict[str, list[Measurement]]) -> None:
    rates = {name: [found.tokens / found.cpu for found in measured] for name, measured in results.items()}
    ours_median = statistics.median(rates["limbeck"])
    print(f"{'':46}{'tokens per CPU-second':>24}{'limbeck is':>13}{'bar':>7}")
    for contender in contenders:
        if contender.missing:
            print(f"{contender.name:46}  not measured: {contender.missing}")
            continue
        found = rates[contender.name]
        middle, spread = statistics.median(found), f"({min(found):,.0f} to {max(found):,.0f})"
        ratio = f"{ours_median / middle:.2f}x" if contender.name != "limbeck" else ""
        verdict = "" if contender.bar is None else "reached" if ours_median / middle >= contender.bar else "missed"
        bar = f"{contender.bar:.1f}x {verdict}" if contender.bar else ""
        print(f"{contender.name:46}{middle:8,.0f} {spread:>17}{ratio:>11}  {bar:>13}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = os.environ.get("LIMBECK_DATA")
    parser.add_argument("--data", type=Path, default=data and Path(data), required=not data, help="or LIMBECK_DATA")
    parser.add_argument("--architecture", choices=sorted(ARCHITECTURES), default="tiny", help="default: tiny")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each contender (default: 3)")
    parser.add_argument("--updates", type=int, default=12, help="measured updates in a round (default: 12)")
    parser.add_argument("--warm-up", type=int, default=4, help="updates before them (default: 4; ours: --updates)")
    parser.add_argument("--words", type=int, default=4000, help="target positions in an update (default: 4000)")
    parser.add_argument("--pairs", type=int, default=60_000, help="sentence pairs of the corpus (default: 60000)")
    parser.add_argument("--only", default="", help="measure only limbeck and contenders whose names contain this text")
    parser.add_argument("--work", type=Path, help="keep corpus and vocabulary here for the next run")
    given = parser.parse_args()

    peers, marian = (os.environ.get(name) for name in ("LIMBECK_PEERS", "LIMBECK_PYMARIAN"))
    contenders = find_contenders(peers and Path(peers).absolute(), marian and Path(marian).absolute())
    contenders = [one for one in contenders if one.name == "limbeck" or given.only.casefold() in one.name.casefold()]
    threads = int(os.environ.get("LIMBECK_CPUS", "1"))
    with tempfile.TemporaryDirectory() as name:
        folder = given.work.absolute() if given.work else Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        files, mean = prepare(given.data, folder, given.pairs, given.words)
        shared = SpeedTask(
            **files,
            architecture=ARCHITECTURES[given.architecture],
            tuned=False,
            threads=threads,
            words=given.words,
            sentences=round(given.words / mean),
            warm_up=given.warm_up,
            updates=given.updates,
            folder="",
        )
        results: dict[str, list[Measurement]] = {one.name: [] for one in contenders if not one.missing}
        for _, contender in itertools.product(range(given.rounds), contenders):
            if contender.missing:
                continue
            with tempfile.TemporaryDirectory(dir=folder) as own:
                found = contender.measure(dataclasses.replace(shared, tuned=contender.tuned, folder=own))
            results[contender.name].append(found)
            rate = f"{found.tokens / found.cpu:,.0f} tokens per CPU-second, {found.tokens / found.wall:,.0f} per second"
            print(f"{contender.name}: {rate}", flush=True)
        print(
            f"\n{given.architecture}, {threads} thread(s), medians of {given.rounds} rounds of {given.updates} updates"
        )
        report(contenders, results)


if __name__ == "__main__":
    main()
