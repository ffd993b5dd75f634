"""Quality after the same time: Multi30k en-de, trained by this trainer and by its peers on the same machine.

All get the same 28,996 captions, the same joint vocabulary of 8,000 pieces, the same transformer (3+3 layers, width
256), --minutes on LIMBECK_CPUS threads (default: all), start-up included, and a beam of 5 over test_2016_flickr;
sacreBLEU judges raw text. Minutes are processor time divided by the threads, which on a quiet machine is wall time, and
on a busy one is still the same for all. Peers have their own trainers with settings that suit the task: the same
warm-up and inverse square root, label smoothing, dropout and, where they can, bfloat16.

Results are kept in FOLDER/results.json: a run goes on with the contenders that are missing. LIMBECK_DATA names the
corpora, LIMBECK_PEERS the Python with `make bench-peers`'s packages, LIMBECK_PYMARIAN the program pymarian.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import sacrebleu

from pipeline.common.corpus import read_columns
from pipeline.common.files import read_lines

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = """example:
  LIMBECK_DATA=corpora LIMBECK_PEERS=.venv-peers/bin/python python benchmarks/multi30k.py --minutes 10 work/
"""
LANGUAGES = ("en", "de")
BEAM = 5
DEVSET = 300  # pairs of val: choosing a checkpoint must not take the time of training
# What this trainer is told. The published recipes for this set are of the same kind: much dropout, few layers.
OPTIONS = {
    "enc-depth": 3,
    "dec-depth": 3,
    "dim-emb": 256,
    "transformer-dim-ffn": 1024,
    "transformer-heads": 4,
    "transformer-dropout": 0.2,
    "label-smoothing": 0.1,
    "learn-rate": 1e-3,
    "lr-warmup": "600u",
    "lr-decay-inv-sqrt": "600u",
    "clip-norm": 1,
    "exponential-smoothing": 2e-3,
    "mini-batch-words": 1250,
    "maxi-batch": 400,
    "max-length": 100,
    "guided-alignment": False,
    "sentencepiece-alphas": [],
    "valid-freq": "200u",
    "valid-metrics": ["chrf"],
    "beam-size": 1,
    "early-stopping": 0,
    "after": "1000e",
    "save-minutes": 1000,
    "disp-freq": "200u",
}


@dataclass(frozen=True)
class Task:
    """What a contender gets; files are plain text."""

    folder: str
    train: tuple[str, str]
    dev: tuple[str, str]
    test: tuple[str, str]
    vocab: str
    minutes: float
    threads: int
    beam: int = BEAM


def prepare(data: Path, folder: Path) -> dict[str, object]:
    """Write the three sets as plain text, and the vocabulary."""
    files: dict[str, object] = {}
    origins = read_lines(data / "en-de" / "train.source.zst")
    rows = read_columns(*(data / "en-de" / f"train.{language}.zst" for language in LANGUAGES))
    sets = {
        "train": [row for row, origin in zip(rows, origins, strict=True) if origin == "multi30k"],
        "dev": list(read_columns(*_set(data, "val")))[:DEVSET],
        "test": list(read_columns(*_set(data, "test_2016_flickr"))),
    }
    for name, pairs in sets.items():
        paths = tuple(folder / f"{name}.{language}" for language in LANGUAGES)
        for side, path in enumerate(paths):
            path.write_text("".join(f"{pair[side]}\n" for pair in pairs), encoding="utf-8")
        files[name] = tuple(map(str, paths))
    vocab = folder / "vocab.spm"
    if not vocab.exists():
        command = [sys.executable, "-m", "pipeline.vocab.build", "--src", "en", "--trg", "de", "--vocab-size", "8000"]
        command += ["--corpus-src", str(folder / "train.en"), "--corpus-trg", str(folder / "train.de")]
        command += ["--output-src", str(vocab), "--output-trg", str(folder / "vocab.copy.spm")]
        subprocess.run(command, check=True, cwd=ROOT)
    return {**files, "vocab": str(vocab)}


def _set(data: Path, name: str) -> list[Path]:
    return [next((data / "multi30k").glob(f"{name}.{language}*")) for language in LANGUAGES]


def limbeck(task: Task) -> list[str]:
    """The trainer's ordinary command, told to stop when its time is over; the best model that it validated."""
    folder = Path(task.folder)
    command = [*(sys.executable, "-m", "pipeline.train.train", "--preset", "student-tiny", "--src", "en")]
    command += ["--trg", "de", "--corpus", "distilled", *task.train, "--devset", *task.dev, "--best-metric", "chrf"]
    command += ["--src-vocab", task.vocab, "--trg-vocab", task.vocab, "--options", json.dumps(OPTIONS)]
    command += ["--output-dir", str(folder / "model")]
    command += ["--checkpoint-dir", str(folder / "checkpoints")]
    run_for(command, task, os.environ)
    kept = sorted((folder / "checkpoints").glob("best-chrf-*.npz"))
    if not kept:
        raise SystemExit(f"no validation within {task.minutes:g} minutes: give more --minutes")
    best = kept[-1]
    return translate(best, task.vocab, Path(task.test[0]), folder / "hypotheses", task.beam)


def translate(model: Path, vocab: str, source: Path, output: Path, beam: int, *flags: str) -> list[str]:
    """The lines that the translate step writes."""
    command = [*(sys.executable, "-m", "pipeline.translate.translate", "--model", str(model), "--src-vocab", vocab)]
    command += ["--trg-vocab", vocab, "--input", str(source), "--output", str(output), *flags]
    subprocess.run([*command, "--options", json.dumps({"beam-size": beam})], check=True, cwd=ROOT)
    return list(read_lines(output))


def peer(module: str) -> Callable[[Task], list[str]]:
    """A peer's script in its own environment: it trains for the time, then writes translations to a file."""

    def run(task: Task) -> list[str]:
        path = Path(task.folder) / "task.json"
        path.write_text(json.dumps(asdict(task)), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks"), "OMP_NUM_THREADS": str(task.threads)}
        environment["OMP_WAIT_POLICY"] = "PASSIVE"  # as ours
        subprocess.run([os.environ["LIMBECK_PEERS"], "-m", module, str(path)], check=True, env=environment)
        return list(read_lines(Path(task.folder) / "hypotheses"))

    return run


def marian(task: Task) -> list[str]:
    """Marian's trainer in float32 (it has no other precision on processors), with the same options as ours."""
    pymarian, model = os.environ["LIMBECK_PYMARIAN"], str(Path(task.folder) / "model.npz")
    unknown = ("guided-alignment", "sentencepiece-alphas", "early-stopping", "after", "save-minutes", "valid-freq")
    given = {name: value for name, value in OPTIONS.items() if name not in (*unknown, "valid-metrics", "beam-size")}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    command = [pymarian, "train", "--type", "transformer", "--transformer-ffn-activation", "relu", "--cost-type"]
    command += ["ce-mean-words", "--tied-embeddings-all", "--mini-batch-round-up", "false"]
    command += [*words, "--model", model, "--vocabs", task.vocab, task.vocab, "--train-sets", *task.train]
    command += ["--optimizer-params", "0.9", "0.98", "1e-09", "--mini-batch", "1000", "--workspace", "3000"]
    command += ["--cpu-threads", str(task.threads), "--seed", "1", "--after", "1000e", "--overwrite"]
    run_for(command, task, os.environ)
    command = [pymarian, "decode", "--models", model, "--vocabs", task.vocab, task.vocab, "--input", task.test[0]]
    command += ["--beam-size", str(task.beam), "--normalize", "1", "--cpu-threads", str(task.threads)]
    done = subprocess.run([*command, "--quiet"], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()


def scores(hypotheses: list[str], reference: Path) -> dict[str, float]:
    """sacreBLEU's chrF and BLEU."""
    references = [list(read_lines(reference))]
    chrf, bleu = sacrebleu.corpus_chrf(hypotheses, references), sacrebleu.corpus_bleu(hypotheses, references)
    return {"chrf": round(chrf.score, 2), "bleu": round(bleu.score, 2)}


def run_for(command: list[str], task: Task, environment: "os._Environ[str]") -> None:
    """Run a trainer that saves its model when it gets SIGTERM, which it gets when its time is over."""
    with (Path(task.folder) / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, cwd=ROOT, env=dict(environment))
        while process.poll() is None and cpu_seconds(process.pid) < 60 * task.minutes * task.threads:
            time.sleep(1)
        if process.poll() is not None:
            raise SystemExit(f"{command[:3]} ended before its time:\n{(Path(task.folder) / 'log').read_text()[-3000:]}")
        process.send_signal(signal.SIGTERM)
        process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of a running process and its children."""
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    ended = root.cpu_times()
    return sum(found.user + found.system for found in times) + ended.children_user + ended.children_system


CONTENDERS: dict[str, tuple[Callable[[Task], list[str]], str | None]] = {
    "limbeck": (limbeck, None),
    "Hugging Face Seq2SeqTrainer, bfloat16": (peer("peers.huggingface_quality"), "LIMBECK_PEERS"),
    "JoeyNMT": (peer("peers.joeynmt_quality"), "LIMBECK_PEERS"),
    "Marian": (marian, "LIMBECK_PYMARIAN"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where everything is kept")
    parser.add_argument("--minutes", type=float, default=10, help="training time of each (default: 10)")
    parser.add_argument("--only", nargs="*", help="contenders whose names contain one of these words")
    given = parser.parse_args()
    folder: Path = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    threads = int(os.environ.get("LIMBECK_CPUS", os.cpu_count() or 1))
    os.environ["LIMBECK_CPUS"] = str(threads)
    shared = prepare(Path(os.environ["LIMBECK_DATA"]), folder)
    results_path = folder / "results.json"
    results = json.loads(results_path.read_text()) if results_path.exists() else {}
    for name, (train, needed) in CONTENDERS.items():
        key = f"{name}, {given.minutes:g} minutes, {threads} threads"
        if key in results or (given.only and not any(word.lower() in name.lower() for word in given.only)):
            continue
        if needed and needed not in os.environ:
            print(f"{name}: not measured, {needed} is not set")
            continue
        own = folder / f"{name.split(',')[0].split()[0].lower()}-{time.strftime('%H%M%S')}"
        own.mkdir()
        hypotheses = train(Task(folder=str(own), minutes=given.minutes, threads=threads, **shared))  # type: ignore[arg-type]
        results[key] = scores(hypotheses, Path(str(shared["test"][1])))  # type: ignore[index]
        results_path.write_text(json.dumps(results, indent=2) + "\n")
    for key, found in results.items():
        print(f"{key:60} chrF {found['chrf']:.1f}  BLEU {found['bleu']:.1f}")


if __name__ == "__main__":
    main()
