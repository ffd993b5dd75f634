"""Continuation, for real: every recipe and mix runs as a whole, from what an earlier run left behind a web server.

The set of tasks is asserted exactly. What was supplied must also have been used: a model in mode use scores as it did
where it came from, one that is continued goes on from its last update, one that is begun with is good at once.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_run import artifacts_of, limbeck, toy_config
from web_server import serve_folder

from pipeline.common.files import count_lines

PAIR = "en-de"
TEST = "dataset-file-test_"
ALWAYS = {
    "all-pipeline",
    "export",
    "export-browser",
    "report",
    "corpus-merge-devset",
    "dev",
    "test",
    "evaluate-significance",
}
STUDENT = {
    "distillation-student-model-train",
    "distillation-student-model-quantize",
    "distillation-corpus-build-shortlist",
    "evaluate-student",
    "evaluate-quantized",
}
DISTILLED = {
    "distillation-parallel-src-chunk",
    *(f"distillation-parallel-src-{step}-{number}/2" for step in ("translate", "extract-best") for number in (1, 2)),
    "distillation-parallel-src-dechunk-translations",
    "corpus-merge-distillation",
    "corpus-align-distillation",
}
FILTERED = {"distillation-parallel-src-translations-score", "distillation-corpus-final-filtering"}
MONO_SRC = {
    "mono-src",
    "corpus-clean-mono-src",
    "corpus-merge-mono-src",
    "distillation-mono-src-chunk",
    *(f"distillation-mono-src-translate-{number}/2" for number in (1, 2)),
    "distillation-mono-src-dechunk-translations",
}
MONO_TRG = {
    "mono-trg",
    "corpus-clean-mono-trg",
    "corpus-merge-mono-trg",
    "backtranslations-mono-trg-chunk",
    *(f"backtranslations-mono-trg-translate-{number}/2" for number in (1, 2)),
    "backtranslations-mono-trg-dechunk-translations",
    "corpus-align-backtranslations",
}
TRAIN = {"train", "corpus-clean-parallel", "corpus-merge-parallel"}
ALIGNED = {"corpus-align-parallel"}
VOCAB = {"build-vocab"}
TEACHER = {"train-teacher-model", "evaluate-teacher"}
BACKWARDS = {"backtranslations-train-backwards-model", "evaluate-backward"}


class Earlier:
    """The finished run, as those see it who have its addresses only."""

    def __init__(self, runs: Path, url: str) -> None:
        self.runs, self.url = runs, url
        self._folders: dict[str, Path] = {}

    def folder(self, label: str) -> Path:
        if label not in self._folders:
            self._folders[label] = artifacts_of(self.runs, label)
        return self._folders[label]

    def address(self, label: str, name: str = "") -> str:
        path = self.folder(label) / name if name else self.folder(label)
        return f"{self.url}/{path.relative_to(self.runs)}"

    def corpus(self, label: str, name: str, aligned: str | None = None) -> dict[str, str]:
        found = {side: self.address(label, f"{name}.{lang}.zst") for side, lang in (("src", "en"), ("trg", "de"))}
        if aligned:
            found |= {
                f"tok-{side}": self.address(aligned, f"{name}.tok.{lang}.zst")
                for side, lang in (("src", "en"), ("trg", "de"))
            }
            found["alignments"] = self.address(aligned, f"{name}.aln.zst")
        return found

    def parallel(self, aligned: bool) -> dict[str, str]:
        return self.corpus("corpus-merge-parallel-en-de", "corpus", "corpus-align-parallel-en-de" if aligned else None)

    def backtranslations(self, aligned: bool) -> dict[str, str]:
        made = "backtranslations-mono-trg-dechunk-translations-en-de"
        return self.corpus(made, "mono", "corpus-align-backtranslations-en-de" if aligned else None)

    def distillation(self, aligned: bool) -> dict[str, str]:
        made = "distillation-corpus-final-filtering-en-de"
        return self.corpus(made, "corpus", "corpus-align-distillation-en-de" if aligned else None)

    @property
    def vocab(self) -> dict[str, str]:
        return {
            side: self.address("build-vocab-en-de", f"vocab.{lang}.spm")
            for side, lang in (("src", "en"), ("trg", "de"))
        }

    def model(self, label: str, mode: str) -> dict[str, Any]:
        return {"url": self.address(label), "mode": mode}

    def teacher(self, mode: str) -> dict[str, Any]:
        return self.model("train-teacher-model-en-de-1", mode)

    def backwards(self, mode: str) -> dict[str, Any]:
        return self.model("backtranslations-train-backwards-model-en-de", mode)

    def student(self, mode: str) -> dict[str, Any]:
        return self.model("distillation-student-model-train-en-de", mode)

    def chrf(self, label: str) -> float:
        return chrf(self.runs, label)


@dataclass
class Mix:
    """A config's continuation, the data sets it lists beside devset and test, and the tasks that it must make."""

    continuation: Callable[[Earlier], dict[str, Any]]
    tasks: set[str]
    datasets: tuple[str, ...] = ()
    check: Callable[["Run"], None] = lambda run: None
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Run:
    earlier: Earlier
    runs: Path
    labels: set[str]

    def log(self, label: str) -> str:
        return limbeck("logs", label, "--runs", self.runs).stdout

    def chrf(self, label: str) -> float:
        return chrf(self.runs, label)


def chrf(runs: Path, label: str) -> float:
    (metrics,) = artifacts_of(runs, label).glob("*.metrics.json")
    score: float = json.loads(metrics.read_text())["chrf"]["score"]
    return score


def first_validation(log: str) -> tuple[int, float]:
    """Its update and chrF."""
    found = re.search(r"validation at update ([\d,]+): chrf ([\d.]+)", log)
    assert found, log
    return int(found[1].replace(",", "")), float(found[2])


def teacher_was_used(run: Run) -> None:
    (label,) = [name for name in run.labels if name.startswith("evaluate-teacher")]
    assert run.chrf(label) == run.earlier.chrf(label)


def backwards_was_used(run: Run) -> None:
    (label,) = [name for name in run.labels if name.startswith("evaluate-backward")]
    assert run.chrf(label) == run.earlier.chrf(label)


def teacher_began_with_parameters(run: Run) -> None:
    update, score = first_validation(run.log("train-teacher-model-en-de-1"))
    assert update == 20
    assert score > 60  # untrained it stays below 30


def backwards_went_on(run: Run) -> None:
    log = run.log("backtranslations-train-backwards-model-en-de")
    update, score = first_validation(log)
    assert update == 600
    assert score > 70
    assert "going on from update 600" in log
    assert "630 updates" in log
    assert "other data" not in log


def teacher_went_on_with_other_data(run: Run) -> None:
    log = run.log("train-teacher-model-en-de-1")
    assert "going on from update 600" in log
    assert "its data was other data" in log
    assert "630 updates" in log


def student_began_with_parameters(run: Run) -> None:
    update, score = first_validation(run.log("distillation-student-model-train-en-de"))
    assert update == 20
    assert score > 60


def student_went_on(run: Run) -> None:
    log = run.log("distillation-student-model-train-en-de")
    update, score = first_validation(log)
    assert (update, score > 60) == (600, True)
    assert "going on from update 600" in log
    assert "other data" not in log
    assert "630 updates" in log


def student_was_used(run: Run) -> None:
    for name in (label for label in run.labels if label.startswith(("evaluate-student", "evaluate-quantized"))):
        assert run.chrf(name) == pytest.approx(run.earlier.chrf(name), abs=0.01)


def corpora_were_merged(run: Run) -> None:
    merged = artifacts_of(run.runs, "corpus-merge-parallel-en-de")
    supplied = count_lines(run.earlier.folder("corpus-merge-parallel-en-de") / "corpus.en.zst")
    assert count_lines(merged / "corpus.en.zst") >= supplied
    stats = json.loads((merged / "corpus.stats.json").read_text())
    assert stats["corpora"]["continuation-parallel"]["read"] == supplied


MIXES = {
    # The recipes of the guide.
    "teacher": Mix(
        lambda run: {
            "vocab": run.vocab,
            "models": {"backwards": run.backwards("use")},
            "corpora": {"parallel": run.parallel(False), "backtranslations": run.backtranslations(False)},
        },
        {
            *(ALWAYS | STUDENT | DISTILLED | FILTERED | ALIGNED | TEACHER),
            *("continuation-vocab", "continuation-model-backwards", "evaluate-backward"),
            *("continuation-corpus-parallel", "continuation-corpus-backtranslations", "corpus-align-backtranslations"),
        },
        check=backwards_was_used,
    ),
    "teacher with alignments": Mix(
        lambda run: {
            "vocab": run.vocab,
            "models": {"backwards": run.backwards("use")},
            "corpora": {"parallel": run.parallel(True), "backtranslations": run.backtranslations(True)},
        },
        {
            *(ALWAYS | STUDENT | DISTILLED | FILTERED | TEACHER),
            *("continuation-vocab", "continuation-model-backwards", "evaluate-backward"),
            *("continuation-corpus-parallel", "continuation-corpus-backtranslations"),
        },
        check=backwards_was_used,
    ),
    "distillation data and a student": Mix(
        lambda run: {
            "vocab": run.vocab,
            "models": {"backwards": run.backwards("use"), "teacher": run.teacher("use")},
            "corpora": {"parallel": run.parallel(False)},
        },
        {
            *(ALWAYS | STUDENT | DISTILLED | FILTERED | ALIGNED),
            *("continuation-vocab", "continuation-model-backwards", "evaluate-backward"),
            *("continuation-corpus-parallel", "continuation-model-teacher", "evaluate-teacher"),
        },
        check=teacher_was_used,
    ),
    "distillation data and a student, with alignments": Mix(
        lambda run: {
            "vocab": run.vocab,
            "models": {"backwards": run.backwards("use"), "teacher": run.teacher("use")},
            "corpora": {"parallel": run.parallel(True)},
            "alignments": {"priors": run.address("corpus-align-parallel-en-de", "corpus.priors.zst")},
        },
        {
            *(ALWAYS | STUDENT | DISTILLED | FILTERED),
            *("continuation-vocab", "continuation-model-backwards", "evaluate-backward"),
            *("continuation-corpus-parallel", "continuation-model-teacher", "evaluate-teacher"),
            "continuation-alignments-priors",
        },
        check=teacher_was_used,
    ),
    "student": Mix(
        lambda run: {"vocab": run.vocab, "corpora": {"distillation": run.distillation(False)}},
        {
            *(ALWAYS | STUDENT),
            *("continuation-vocab", "continuation-corpus-distillation", "corpus-align-distillation"),
        },
    ),
    "student with alignments": Mix(
        lambda run: {
            "vocab": run.vocab,
            "corpora": {"distillation": run.distillation(True)},
            "shortlist": run.address("distillation-corpus-build-shortlist-en-de", "lex.s2t.pruned.zst"),
        },
        {
            *(ALWAYS | STUDENT) - {"distillation-corpus-build-shortlist"},
            *("continuation-vocab", "continuation-corpus-distillation", "continuation-shortlist"),
        },
    ),
    # Mixes.
    "teacher alone": Mix(
        lambda run: {"models": {"teacher": run.teacher("use")}},
        ALWAYS | STUDENT | DISTILLED | TRAIN | ALIGNED | VOCAB | {"continuation-model-teacher", "evaluate-teacher"},
        ("train",),
        teacher_was_used,
    ),
    "teacher begins with parameters, other data": Mix(
        lambda run: {"vocab": run.vocab, "models": {"teacher": run.teacher("init")}},
        ALWAYS | STUDENT | DISTILLED | TRAIN | ALIGNED | TEACHER | {"continuation-vocab", "continuation-model-teacher"},
        ("train",),
        teacher_began_with_parameters,
    ),
    "teacher goes on, with other data": Mix(
        lambda run: {"models": {"teacher": run.teacher("continue")}},
        ALWAYS | STUDENT | DISTILLED | TRAIN | ALIGNED | VOCAB | TEACHER | {"continuation-model-teacher"},
        ("train",),
        teacher_went_on_with_other_data,
        {"training-teacher": {"after": "630u"}},
    ),
    "backwards goes on": Mix(
        lambda run: {"models": {"backwards": run.backwards("continue")}, "corpora": {"parallel": run.parallel(False)}},
        {
            *(ALWAYS | STUDENT | DISTILLED | FILTERED | ALIGNED | VOCAB | TEACHER | BACKWARDS | MONO_TRG),
            *("continuation-model-backwards", "continuation-corpus-parallel"),
        },
        ("mono-trg",),
        backwards_went_on,
        {"training-backward": {"after": "630u"}},
    ),
    "vocab alone": Mix(
        lambda run: {"vocab": run.vocab},
        ALWAYS | STUDENT | DISTILLED | TRAIN | ALIGNED | TEACHER | {"continuation-vocab"},
        ("train",),
    ),
    "parallel with alignments, back-translations without": Mix(
        lambda run: {
            "vocab": run.vocab,
            "corpora": {"parallel": run.parallel(True), "backtranslations": run.backtranslations(False)},
        },
        {
            *(ALWAYS | STUDENT | DISTILLED | TEACHER),
            *("continuation-vocab", "continuation-corpus-parallel", "continuation-corpus-backtranslations"),
            "corpus-align-backtranslations",
        },
    ),
    "parallel beside data sets": Mix(
        lambda run: {"corpora": {"parallel": run.parallel(False)}},
        ALWAYS | STUDENT | DISTILLED | TRAIN | ALIGNED | VOCAB | TEACHER | {"continuation-corpus-parallel"},
        ("train",),
        corpora_were_merged,
    ),
    "student begins with parameters": Mix(
        lambda run: {
            "vocab": run.vocab,
            "models": {"student": run.student("init")},
            "corpora": {"distillation": run.distillation(True)},
        },
        {
            *(ALWAYS | STUDENT),
            *("continuation-vocab", "continuation-corpus-distillation", "continuation-model-student"),
        },
        check=student_began_with_parameters,
    ),
    "student alone": Mix(
        lambda run: {
            "models": {"student": run.student("use")},
            "shortlist": run.address("distillation-corpus-build-shortlist-en-de", "lex.s2t.pruned.zst"),
        },
        {
            *(ALWAYS | STUDENT) - {"distillation-corpus-build-shortlist", "distillation-student-model-train"},
            *("continuation-shortlist", "continuation-model-student"),
        },
        check=student_was_used,
    ),
    "student goes on": Mix(
        lambda run: {
            "vocab": run.vocab,
            "models": {"student": run.student("continue")},
            "corpora": {"distillation": run.distillation(True)},
            "shortlist": run.address("distillation-corpus-build-shortlist-en-de", "lex.s2t.pruned.zst"),
        },
        {
            *(ALWAYS | STUDENT) - {"distillation-corpus-build-shortlist"},
            *("continuation-vocab", "continuation-corpus-distillation", "continuation-model-student"),
            "continuation-shortlist",
        },
        check=student_went_on,
        options={"training-student": {"after": "630u"}},
    ),
    "back-translations given, source text still honoured": Mix(
        lambda run: {
            "vocab": run.vocab,
            "corpora": {"parallel": run.parallel(True), "backtranslations": run.backtranslations(True)},
        },
        {
            *(ALWAYS | STUDENT | DISTILLED | MONO_SRC | TEACHER),
            *("continuation-vocab", "continuation-corpus-parallel", "continuation-corpus-backtranslations"),
        },
        ("mono-src",),
    ),
    "text of both sides and a devset": Mix(
        lambda run: {
            "models": {"backwards": run.backwards("use"), "teacher": run.teacher("use")},
            "corpora": {
                "parallel": run.parallel(True),
                "mono-src": run.address("corpus-merge-mono-src-en", "mono.en.zst"),
                "devset": run.corpus("corpus-merge-devset-en-de", "devset"),
            },
        },
        {
            *(ALWAYS | STUDENT | DISTILLED | FILTERED | VOCAB | MONO_SRC),
            *("continuation-corpus-parallel", "continuation-model-teacher", "evaluate-teacher", "evaluate-backward"),
            *("continuation-corpus-mono-src", "continuation-corpus-devset", "continuation-model-backwards"),
        }
        - {"corpus-merge-devset", "dev", "mono-src", "corpus-clean-mono-src", "corpus-merge-mono-src"},
    ),
}
# One of each kind of substitution; the others run by themselves (make test-slow).
QUICK = ("teacher with alignments", "student goes on")


def plain(label: str) -> str:
    """A label without languages, and without the hash in the names of files."""
    if found := re.match(r"dataset-file-(train|dev|test|mono)_\w{6}-(en|de)", label):
        return {"mono-en": "mono-src", "mono-de": "mono-trg"}.get(f"{found[1]}-{found[2]}", found[1])
    label = re.sub(r"-(?:file-)?(?:file_)?(?:train|dev|test|mono)_\w{6}", "", label)
    label = re.sub(r"^corpus-clean-mono-(en|de)-mono-(src|trg)$", r"corpus-clean-mono-\2", label)
    label = re.sub(r"-en-de(?=-\d/|$)", "", label)
    return re.sub(r"-en-de-1$|-(?:en|de)$", "", label)


@pytest.fixture(scope="module")
def earlier(finished_run: tuple[Path, Path]) -> Iterator[Earlier]:
    _, runs = finished_run
    with serve_folder(runs) as url:
        yield Earlier(runs, url)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that what mixes have in common is made once."""
    return tmp_path_factory.mktemp("continued") / "runs"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in MIXES]
)
def test_a_mix_runs_as_a_whole(name: str, earlier: Earlier, runs: Path, corpora: Path, tmp_path: Path) -> None:
    mix = MIXES[name]
    values = toy_config(corpora, 40, mono=True)
    for options in ("training-teacher", "training-backward", "training-student"):
        values["marian-args"][options] |= {"valid-freq": "20u", **mix.options.get(options, {})}
    kept = {"test", *(() if "devset" in mix.continuation(earlier).get("corpora", {}) else ("devtest",)), *mix.datasets}
    values["datasets"] = {use: names for use, names in values["datasets"].items() if use in kept}
    values["continuation"] = mix.continuation(earlier)
    config = tmp_path / "config.yml"
    config.write_text(yaml.safe_dump(values))
    graph = json.loads(limbeck("graph", config, "--format", "json", "--runs", tmp_path / "none").stdout)
    labels = {task["label"] for task in graph.values()}
    assert {plain(label) for label in labels} == mix.tasks
    limbeck("train", config, "--runs", runs, "--yes")
    mix.check(Run(earlier, runs, labels))
