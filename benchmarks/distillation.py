"""What each way of distilling is worth: the same student, taught in seven ways for the same time, on Multi30k en-de.

The teacher (3+3 layers, width 256) is trained once for --teacher-minutes, and translates the training captions once,
with a beam and n-best list of 8. Each student (2+1 layers of the same width) then trains for --minutes on LIMBECK_CPUS
threads (default: all; minutes are processor time divided by the threads), whatever its teaching costs, once for each
seed; a beam of 4 over
test_2016_flickr, sacreBLEU on raw text. Results are kept in FOLDER/results.json: a run goes on with what is missing.
LIMBECK_DATA names the corpora.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from multi30k import OPTIONS, ROOT, Task, prepare, run_for, scores, translate

EXAMPLE = """example:
  LIMBECK_DATA=corpora python benchmarks/distillation.py --minutes 5 --seeds 1 2 3 work/
"""
NBEST = 8
STUDENT = {**OPTIONS, "enc-depth": 2, "dec-depth": 1, "transformer-dropout": 0.1, "valid-freq": "150u"}
# Which target text a student reads, and the trainer's flags beside it ("TEACHER" stands for the teacher's model).
METHODS: dict[str, tuple[str, list[str]]] = {
    "no distillation": ("original", []),
    "word": ("original", ["--distillation", '{"recipe": "word"}', "--teacher", "TEACHER"]),
    "sequence": ("sequence", []),
    "best of 8": ("best", []),
    "interpolation": ("both", ["--distillation", '{"recipe": "interpolation"}']),
    "hybrid": ("sequence", ["--distillation", '{"recipe": "hybrid"}', "--teacher", "TEACHER"]),
    "shrink and fine-tune": (
        "sequence",
        ["--init", "TEACHER", "--initialise", '{"encoder-layers": [1, 3], "decoder-layers": "last"}'],
    ),
}


def train(task: Task, options: dict[str, object], seed: int, corpora: list[list[str]], flags: list[str]) -> Path:
    """Train for the time; the best model."""
    folder = Path(task.folder)
    best = folder / "checkpoints"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [*(sys.executable, "-m", "pipeline.train.train", "--preset", "student-tiny", "--src", "en")]
        command += ["--trg", "de", "--devset", *task.dev, "--best-metric", "chrf", "--seed", str(seed)]
        command += [word for corpus in corpora for word in ("--corpus", *corpus)]
        command += ["--src-vocab", task.vocab, "--trg-vocab", task.vocab, "--options", json.dumps(options), *flags]
        command += ["--output-dir", str(folder / "model"), "--checkpoint-dir", str(best)]
        run_for(command, task, os.environ)
        (folder / "done").touch()
    kept = sorted(best.glob("best-chrf-*.npz"))
    if not kept:
        raise SystemExit(f"{folder.name}: no validation within {task.minutes:g} minutes: give more")
    return kept[-1]


def teach(teacher: Path, task: Task, folder: Path) -> dict[str, str]:
    """Target text of the training set: the teacher's best hypotheses, and of eight the nearest to the reference."""
    nbest, sequence, best = folder / "train.nbest", folder / "train.sequence.de", folder / "train.best.de"
    if not best.exists():
        lines = translate(teacher, task.vocab, Path(task.train[0]), nbest, NBEST, "--nbest")
        first = [line.split(" ||| ")[1] for line in lines[::NBEST]]
        sequence.write_text("".join(f"{line}\n" for line in first), encoding="utf-8")
        command = [sys.executable, "-m", "pipeline.translate.extract_best", "--nbest", str(nbest), "--references"]
        subprocess.run([*command, task.train[1], "--output", str(best)], check=True, cwd=ROOT)
    return {"original": task.train[1], "sequence": str(sequence), "best": str(best)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where everything is kept")
    parser.add_argument("--minutes", type=float, default=5, help="training time of each student (default: 5)")
    parser.add_argument("--teacher-minutes", type=float, default=10, help="of the teacher (default: 10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="each student once for each (default: 1)")
    given = parser.parse_args()
    folder: Path = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    threads = int(os.environ.get("LIMBECK_CPUS", os.cpu_count() or 1))
    os.environ["LIMBECK_CPUS"] = str(threads)
    shared = prepare(Path(os.environ["LIMBECK_DATA"]), folder)

    def task(name: str, minutes: float) -> Task:
        return Task(folder=str(folder / name), minutes=minutes, threads=threads, **shared)  # type: ignore[arg-type]

    def judge(name: str, model: Path) -> None:
        own = task(name, 0)
        hypotheses = translate(model, own.vocab, Path(own.test[0]), folder / name / "hypotheses", 4)
        results[name] = scores(hypotheses, Path(own.test[1]))
        results_path.write_text(json.dumps(results, indent=2) + "\n")

    results_path = folder / "results.json"
    results = json.loads(results_path.read_text()) if results_path.exists() else {}
    own = task("teacher", given.teacher_minutes)
    teacher = train(own, OPTIONS, 1, [["original", *own.train]], [])
    if "teacher" not in results:
        judge("teacher", teacher)
    targets = teach(teacher, own, folder)
    for seed in given.seeds:
        for method, (target, flags) in METHODS.items():
            name = f"{method}, seed {seed}, {given.minutes:g} minutes"
            if name in results:
                continue
            own = task(name, given.minutes)
            names = {"original": "original", "both": "distilled"}
            corpora = [
                [names.get(target, "distilled"), own.train[0], targets["sequence" if target == "both" else target]]
            ]
            if target == "both":
                corpora.append(["original", own.train[0], own.train[1]])
            words = [str(teacher) if word == "TEACHER" else word for word in flags]
            if "--teacher" in words:
                words += ["--teacher-vocab", own.vocab, own.vocab]
            judge(name, train(own, STUDENT, seed, corpora, words))
    print(f"{'teacher':30} chrF {results['teacher']['chrf']:.1f}  BLEU {results['teacher']['bleu']:.1f}")
    for method in METHODS:
        found = [result for name, result in results.items() if name.startswith(f"{method}, seed")]
        chrf, bleu = ([result[metric] for result in found] for metric in ("chrf", "bleu"))
        spread = f"  ({len(found)} seeds, chrF {min(chrf):.1f} to {max(chrf):.1f})" if len(found) > 1 else ""
        print(f"{method:30} chrF {statistics.mean(chrf):.1f}  BLEU {statistics.mean(bleu):.1f}{spread}")


if __name__ == "__main__":
    main()
