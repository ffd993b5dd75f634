"""pipeline.evaluate.significance: against sacreBLEU's own test, and on differences that are known."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest

from pipeline.common.errors import UserError
from pipeline.common.files import write_lines
from pipeline.evaluate import significance
from pipeline.evaluate.significance import compare_models, main

WORDS = ("der die das Haus Buch liest kauft alt klein gross Stadt Fluss und oder nicht sehr lang schnell").split()  # noqa: SIM905


def sentences(count: int = 60) -> list[str]:
    generator = random.Random(3)
    return [" ".join(generator.choices(WORDS, k=generator.randint(4, 14))) for _ in range(count)]


def damaged(lines: list[str], share: float, seed: int) -> list[str]:
    generator = random.Random(seed)
    return [" ".join("falsch" if generator.random() < share else word for word in line.split()) for line in lines]


REFERENCES = sentences()
SYSTEMS = {
    "teacher": damaged(REFERENCES, 0.15, 1),
    "student": damaged(REFERENCES, 0.35, 2),
    "student-int8": damaged(REFERENCES, 0.36, 5),
}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return compare_models(SYSTEMS, REFERENCES, "de", samples=300)


def test_scores_and_p_values_are_sacrebleus(result: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    named = list(SYSTEMS.items())
    for baseline, others in ((named[0], named[1:]), (named[1], named[2:])):
        _, expected = PairedTest(
            [baseline, *others], {"chrF2": CHRF(), "BLEU": BLEU()}, [REFERENCES], test_type="bs", n_samples=300
        )()
        for index, (name, _) in enumerate(others, start=1):
            pair = next(pair for pair in result["pairs"] if (pair["old"], pair["new"]) == (baseline[0], name))
            for key, theirs in (("chrf", expected["chrF2"]), ("bleu", expected["BLEU"])):
                assert pair[key]["p"] == pytest.approx(theirs[index].p_value, abs=1e-5)
                assert result["models"][name][key]["score"] == pytest.approx(theirs[index].score, abs=1e-3)
                assert pair[key]["delta"] == pytest.approx(theirs[index].score - theirs[0].score, abs=1e-3)


def test_a_large_difference_is_significant_and_a_small_one_is_not(result: dict[str, Any]) -> None:
    pairs = {(pair["old"], pair["new"]): pair for pair in result["pairs"]}
    assert list(pairs) == [("teacher", "student"), ("teacher", "student-int8"), ("student", "student-int8")]
    large, small = pairs["teacher", "student"]["chrf"], pairs["student", "student-int8"]["chrf"]
    assert large["low"] < large["delta"] < large["high"] < 0 and large["p"] < 0.01
    assert large["significant"] and not small["significant"]
    assert small["low"] < 0 < small["high"] and small["p"] > 0.05
    assert "seed" not in result["signatures"]["chrf"] and result["seed"] == 12345


def test_p_of_normal_differences_is_about_one_sided() -> None:
    """What the docstring says of sacreBLEU's p, which the verdict is not built on."""
    differences = np.random.default_rng(2).normal(1.96, 1.0, size=100_000)
    assert significance.p_value(differences, 1.96) == pytest.approx(0.025, abs=0.003)  # two-sided it would be 0.05


def test_equal_translations_do_not_differ() -> None:
    pair = compare_models({"a": SYSTEMS["student"], "b": SYSTEMS["student"]}, REFERENCES, "de", samples=100)["pairs"][0]
    assert pair["chrf"] == pair["bleu"] == {"delta": 0, "low": 0, "high": 0, "p": 1, "significant": False}


def test_parts_change_nothing(result: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "_INDICES_AT_ONCE", 7 * len(REFERENCES))
    assert compare_models(SYSTEMS, REFERENCES, "de", samples=300) == result


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    values = np.random.default_rng(1).normal(size=20_000)
    low, high = significance.confidence_interval(values)
    assert (low, high) == (pytest.approx(-1.96, abs=0.05), pytest.approx(1.96, abs=0.05))


def written(folder: Path, **columns: list[str]) -> dict[str, str]:
    for name, lines in columns.items():
        with write_lines(folder / name) as writer:
            for line in lines:
                writer.write(line)
    return {name: str(folder / name) for name in columns}


def test_the_command(tmp_path: Path, result: dict[str, Any]) -> None:
    paths = written(tmp_path, references=REFERENCES, **SYSTEMS, short=REFERENCES[1:], none=[])
    given = ["--dataset", "toy", "--src", "en", "--trg", "de", "--references", paths["references"]]
    given += ["--output", str(tmp_path / "toy.significance.json"), "--samples", "300"]
    systems = [word for name in reversed(SYSTEMS) for word in ("--hypotheses", name, paths[name])]
    main([*given, *systems])
    assert json.loads((tmp_path / "toy.significance.json").read_text("utf-8")) == {
        "dataset": "toy",
        "src": "en",
        "trg": "de",
        **result,
    }
    for wrong, named in (
        (["--hypotheses", "student", paths["short"]], "twice"),
        (["--hypotheses", "other", paths["short"]], "equal length"),
        (["--samples", "10"], "--samples"),
        (["--seed", "-1"], "--seed"),
    ):
        with pytest.raises(UserError, match=named):
            main([*given, *systems, *wrong])
    with pytest.raises(UserError, match="no lines"):
        main([*given, "--references", paths["none"], "--hypotheses", "a", paths["none"]])
