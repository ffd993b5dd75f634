"""Fine-tuning a student in the 8-bit arithmetic of its engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import padded, toy_pairs, trained_files, trained_model

from pipeline.common.errors import UserError
from pipeline.model.formats import bergamot, npz
from pipeline.model.quantization import Quantization, QuantizedTransformer, load_alphas
from pipeline.model.vocab import Vocab
from pipeline.train.batches import Batch
from pipeline.train.checkpoint import read_identity
from pipeline.train.compute import Compute
from pipeline.train.objective import Objective
from pipeline.train.options import TrainingOptions, parse_options
from pipeline.train.train import main
from pipeline.train.validate import Validator

from .conftest import write_rows

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = {
    "guided-alignment": False,
    "mini-batch-words": 1000,
    "optimizer-delay": 1,
    "max-length": 60,
    "learn-rate": 1e-3,
    "lr-warmup": "10u",
    "lr-decay-inv-sqrt": "100u",
    "exponential-smoothing": 0.01,
    "valid-metrics": ["chrf", "ce-mean-words"],
    "precision": "float32",
}
ARCHITECTURE = {"dim-emb": 32, "transformer-dim-ffn": 64, "enc-depth": 2, "dec-depth": 2, "transformer-heads": 4}
BROWSER = Quantization("browser", alphas=dict.fromkeys(bergamot.product_inputs(trained_model().config), 3.0))
COMPUTE = Compute(torch.device("cpu"), 1)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_rows(toy_pairs(1500), folder / "corpus.en.zst", folder / "corpus.de.zst")
    write_rows(toy_pairs(40, 5), folder / "dev.en.zst", folder / "dev.de.zst")
    return folder


def arguments(corpora: Path, folder: Path, quantization: str, **options: object) -> list[str]:
    given = {**OPTIONS, **{name.replace("_", "-"): value for name, value in options.items()}}
    student, vocab = trained_files()
    return [
        *("--preset", "student-finetuned", "--src", "en", "--trg", "de", "--quantization", quantization),
        *("--corpus", "distilled", str(corpora / "corpus.en.zst"), str(corpora / "corpus.de.zst")),
        *("--devset", str(corpora / "dev.en.zst"), str(corpora / "dev.de.zst")),
        *("--src-vocab", str(vocab), "--trg-vocab", str(vocab), "--init", str(student)),
        *("--best-metric", "chrf", "--options", json.dumps(given)),
        *("--output-dir", str(folder / "model"), "--checkpoint-dir", str(folder / "checkpoints")),
    ]


def records(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "model" / "train.jsonl").read_text().splitlines()]


def validate(corpora: Path, model: object) -> dict[str, float]:
    vocab = Vocab.load(trained_files()[1])
    options = parse_options("student-finetuned", {"valid-metrics": ["chrf", "ce-mean-words"]})
    devset = corpora / "dev.en.zst", corpora / "dev.de.zst"
    return Validator(devset, (vocab, vocab), "de", options, options.valid_metrics).validate(model, COMPUTE)  # type: ignore[arg-type]


def best_model(folder: Path) -> Path:
    return folder / "model" / "final.model.npz.best-chrf.npz"


@pytest.mark.parametrize("target", ["browser", "ctranslate2"])
def test_a_student_gets_better_in_the_arithmetic_it_is_judged_in(target: str, corpora: Path, tmp_path: Path) -> None:
    main(arguments(corpora, tmp_path, target, after="30u", valid_freq="15u"))
    found = records(tmp_path)
    assert [record["update"] for record in found] == [0, 15, 30]
    assert found[-1]["ce-mean-words"] < found[0]["ce-mean-words"]

    alphas = load_alphas(best_model(tmp_path))
    assert bool(alphas) == (target == "browser")
    quantization = Quantization(target, alphas=alphas)
    before = validate(corpora, QuantizedTransformer.of(npz.load(trained_files()[0]), quantization))
    assert before["ce-mean-words"] == pytest.approx(found[0]["ce-mean-words"], rel=1e-4)
    assert before["ce-mean-words"] != pytest.approx(validate(corpora, trained_model())["ce-mean-words"], rel=1e-4)
    after = validate(corpora, QuantizedTransformer.of(npz.load(best_model(tmp_path)), quantization))
    best = max(found, key=lambda record: (record["chrf"], -record["update"]))
    assert after["chrf"] == pytest.approx(best["chrf"], abs=0.01)
    assert after["ce-mean-words"] == pytest.approx(best["ce-mean-words"], rel=1e-4)


def test_the_browsers_multipliers_go_with_the_model_and_the_checkpoint(corpora: Path, tmp_path: Path) -> None:
    main(arguments(corpora, tmp_path, "browser", after="1u"))
    stored = npz.load_arrays(best_model(tmp_path))
    names = {name.removesuffix("_QuantMultA") for name in stored if name.endswith("_QuantMultA")}
    assert names == set(bergamot.product_inputs(trained_model().config))
    assert all(stored[f"{name}_QuantMultA"].shape == (1, 1) for name in names)
    identity = read_identity(tmp_path / "model")
    assert identity["quantization"] == "browser"
    alphas = load_alphas(best_model(tmp_path))
    assert alphas == identity["quantization-alphas"]
    bergamot.save(npz.load(best_model(tmp_path)), tmp_path / "model.bin", alphas)
    assert bergamot.load_alphas(tmp_path / "model.bin") == alphas


def test_stopping_and_continuing_changes_nothing_bit_by_bit(corpora: Path, tmp_path: Path) -> None:
    options = {"valid_freq": "4u", "transformer_dropout": 0.1, "optimizer_delay": 2, "precision": "bfloat16"}
    main(arguments(corpora, tmp_path / "straight", "browser", after="7u", **options))
    main(arguments(corpora, tmp_path / "parts", "browser", after="3u", **options))
    main(arguments(corpora, tmp_path / "parts", "browser", after="7u", **options))
    straight, parts = (npz.load_arrays(tmp_path / part / "model/model.npz") for part in ("straight", "parts"))
    assert all(np.array_equal(straight[name], parts[name]) for name in straight)
    chrf = [{r["update"]: r["ce-mean-words"] for r in records(tmp_path / part)} for part in ("straight", "parts")]
    assert all(chrf[1][update] == value for update, value in chrf[0].items())


def test_two_processes_follow_the_curve_of_one(corpora: Path, tmp_path: Path) -> None:
    options = {"after": "4u", "valid_freq": "2u", "optimizer_delay": 2}
    main(arguments(corpora, tmp_path / "one", "browser", **options))
    command = [*(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d")]
    command += ["--rdzv-endpoint", "localhost:0", "-m", "pipeline.train.train"]
    done = subprocess.run(
        [*command, *arguments(corpora, tmp_path / "two", "browser", **options)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env={**os.environ, "LIMBECK_CPUS": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    one, two = (records(tmp_path / name) for name in ("one", "two"))
    assert [record["update"] for record in one] == [record["update"] for record in two] == [0, 2, 4]
    for record, other in zip(one, two, strict=True):
        assert other["ce-mean-words"] == pytest.approx(record["ce-mean-words"], rel=1e-3)
    assert load_alphas(best_model(tmp_path / "two")) == load_alphas(best_model(tmp_path / "one"))


def test_the_student_is_kept_when_training_on_makes_it_worse(corpora: Path, tmp_path: Path) -> None:
    ruinous = {"learn_rate": 0.3, "lr_warmup": "1u", "exponential_smoothing": 0}
    main(arguments(corpora, tmp_path, "ctranslate2", after="4u", valid_freq="4u", **ruinous))
    first, last = records(tmp_path)
    assert last["chrf"] < first["chrf"] / 2
    kept, student = npz.load_arrays(best_model(tmp_path)), npz.load_arrays(trained_files()[0])
    assert all(np.array_equal(kept[name], student[name]) for name in student)


def test_a_training_in_other_arithmetic_is_not_continued(corpora: Path, tmp_path: Path) -> None:
    main(arguments(corpora, tmp_path, "ctranslate2", after="1u"))
    with pytest.raises(UserError, match="quantization ctranslate2, but browser is asked for"):
        main(arguments(corpora, tmp_path, "browser", after="2u"))
    with pytest.raises(UserError, match="quantization is None here but ctranslate2 there"):
        main(arguments(corpora, tmp_path, "none", after="2u", **ARCHITECTURE))


def test_flags_that_cannot_be_meant_are_errors(corpora: Path, tmp_path: Path) -> None:
    command = arguments(corpora, tmp_path, "browser")
    without = [word for place, word in enumerate(command) if "--init" not in command[max(place - 1, 0) : place + 1]]
    with pytest.raises(UserError, match="fine-tunes a student that is trained already: give it as --init"):
        main(without)
    for other in ("none", "ctranslate2"):
        with pytest.raises(UserError, match="saturation is of the browser's"):
            main([*arguments(corpora, tmp_path, other), "--quantization-saturation"])
    with pytest.raises(UserError, match="has dim-emb 32, but the model to train has 64"):
        main(arguments(corpora, tmp_path, "browser", dim_emb=64))
    with pytest.raises(SystemExit):
        main(arguments(corpora, tmp_path, "int4"))


def test_on_a_processor_the_faster_way_of_training_keeps_the_arithmetic(corpora: Path) -> None:
    vocab = Vocab.load(trained_files()[1])
    sides = [padded(vocab.encode([row[side] for row in toy_pairs(12, 3)])) for side in (0, 1)]
    batch = Batch(*sides[0], *sides[1], None)
    total = int(batch.trg_mask.sum())
    for quantization in (BROWSER, Quantization("ctranslate2")):
        model = QuantizedTransformer.of(npz.load(trained_files()[0]).train(), quantization)
        found = []
        for packed in (True, False):
            objective = Objective(model, TrainingOptions(label_smoothing=0.1), COMPUTE)
            assert objective.packed is not None
            objective.packed = objective.packed if packed else None
            model.zero_grad()
            costs = objective.backward([batch], total)
            found.append((costs, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
        assert found[0][0]["cost"] == pytest.approx(found[1][0]["cost"], rel=1e-4)
        for name, gradient in found[0][1].items():
            torch.testing.assert_close(gradient, found[1][1][name], rtol=0.05, atol=2e-3)
        exact = Objective(npz.load(trained_files()[0]), TrainingOptions(label_smoothing=0.1), COMPUTE)
        difference = abs(exact.backward([batch], total)["cost"] - found[0][0]["cost"])
        assert difference > 3 * abs(found[0][0]["cost"] - found[1][0]["cost"])
