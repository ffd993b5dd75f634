"""Whole trainings of students that are taught: recipes, checkpoints, layers of a teacher."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_lines
from pipeline.model.formats import npz
from pipeline.score.distributions import main as store_distributions
from pipeline.train.distillation import RECIPES
from pipeline.train.train import main

from .conftest import Files

TINY = {
    "dim-emb": 32,
    "enc-depth": 2,
    "dec-depth": 1,
    "transformer-heads": 4,
    "transformer-dim-ffn": 64,
    "learn-rate": "4e-3",
    "lr-warmup": "20u",
    "lr-decay-inv-sqrt": "100u",
    "mini-batch-words": 600,
    "optimizer-delay": 2,
    "sentencepiece-alphas": 0,
    "max-length": 60,
    "valid-freq": "500u",
    "save-freq": "500u",
    "valid-metrics": ["ce-mean-words"],
    "precision": "float32",
}

pytestmark = pytest.mark.usefixtures("one_thread")


def arguments(
    files: Files, folder: Path, *more: str, corpora: tuple[str, ...] = ("distilled",), **options: Any
) -> list[str]:
    given = {**TINY, **{name.replace("_", "-"): value for name, value in options.items()}}
    named = [word for name in corpora for word in ("--corpus", name, *map(str, files.corpus))]
    return [
        *("--preset", "student-tiny", "--src", "en", "--trg", "de", *named),
        *("--devset", *map(str, files.devset)),
        *("--src-vocab", str(files.vocabs[0]), "--trg-vocab", str(files.vocabs[1])),
        *("--best-metric", "ce-mean-words", "--options", json.dumps(given)),
        *("--output-dir", str(folder / "model"), "--checkpoint-dir", str(folder / "checkpoints"), *more),
    ]


def taught(values: dict[str, Any], teacher: Path | None = None) -> list[str]:
    return ["--distillation", json.dumps(values), *(["--teacher", str(teacher)] if teacher else [])]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "model" / "train.jsonl").read_text().splitlines()]


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    return npz.load(folder / "model" / "model.npz").state_dict()


@pytest.fixture(scope="module")
def teacher(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory: wider and deeper than the students, trained for a few seconds."""
    folder = tmp_path_factory.mktemp("teacher")
    shape = {"dim_emb": 48, "enc_depth": 3, "dec_depth": 3, "transformer_dim_ffn": 96}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_CPUS", "1")
        main(arguments(files, folder, **shape, after="50u"))
    return folder / "model"


COSTS = {
    "sequence": [],
    "word": ["word-kd"],
    "interpolation": [],
    "hybrid": ["word-kd"],
    "triple": ["word-kd", "encoder-hidden", "decoder-hidden"],
    "low-data": ["word-kd"],
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains(files: Files, teacher: Path, tmp_path: Path, recipe: str) -> None:
    corpora = {"word": ("original",), "interpolation": ("distilled", "original"), "low-data": ("distilled", "original")}
    model = teacher if COSTS[recipe] else None
    main(
        arguments(
            files, tmp_path, *taught({"recipe": recipe}, model), corpora=corpora.get(recipe, ("distilled",)), after="6u"
        )
    )
    (record,) = records(tmp_path)
    assert {"train-cost", "alignment-cost", *COSTS[recipe]} <= record.keys()
    assert not {"word-kd", "encoder-hidden", "decoder-hidden"} - set(COSTS[recipe]) & record.keys()
    assert all(0 < record[name] < 10 for name in ["train-cost", *COSTS[recipe]])


def test_a_student_comes_near_its_teacher_without_ever_being_told_the_targets(
    files: Files, teacher: Path, tmp_path: Path
) -> None:
    distillation = {"recipe": "hybrid", "nll-weight": 0, "word-kd-weight": 1}
    main(arguments(files, tmp_path, *taught(distillation, teacher), after="60u", valid_freq="30u"))
    first, second = records(tmp_path)
    assert second["word-kd"] < 0.8 * first["word-kd"]
    assert second["train-cost"] < first["train-cost"] - 0.2


def test_projections_continue_bit_by_bit(files: Files, teacher: Path, tmp_path: Path) -> None:
    given = taught({"recipe": "triple", "layer-map": "even", "hidden-loss": "mse"}, teacher)
    options: dict[str, Any] = {"transformer_dropout": 0.1}
    main(arguments(files, tmp_path / "straight", *given, after="8u", **options))
    main(arguments(files, tmp_path / "parts", *given, after="5u", **options))
    main(arguments(files, tmp_path / "parts", *given, after="8u", **options))
    straight, parts = parameters(tmp_path / "straight"), parameters(tmp_path / "parts")
    assert all(torch.equal(straight[name], parts[name]) for name in straight)
    states = [torch.load(tmp_path / part / "model/optimizer.pt")["projections"] for part in ("straight", "parts")]
    assert set(states[0]) == {"encoder_l1_projection", "encoder_l2_projection", "decoder_l1_projection"}
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    with pytest.raises(UserError, match=r"another training .*distillation is"):
        main(arguments(files, tmp_path / "parts", *taught({"recipe": "triple"}, teacher), after="8u", **options))


def test_shrink_and_fine_tune_keeps_what_is_frozen(files: Files, teacher: Path, tmp_path: Path) -> None:
    initialise = {"encoder-layers": [1, 3], "decoder-layers": "last", "freeze": ["embeddings", "encoder"]}
    shape = {"dim_emb": 48, "transformer_dim_ffn": 96}
    given = ["--init", str(teacher), "--initialise", json.dumps(initialise)]
    main(arguments(files, tmp_path, *given, **shape, after="4u", optimizer_delay=1))
    best = npz.load(teacher / "final.model.npz.best-ce-mean-words.npz")
    found = parameters(tmp_path)
    for name, value in found.items():
        theirs = best.get_parameter(name.replace("encoder_l2_", "encoder_l3_").replace("decoder_l1_", "decoder_l3_"))
        frozen = name.endswith("Wemb") or name.startswith("encoder_")
        assert torch.equal(value, theirs) == frozen, name
    state = torch.load(tmp_path / "model/optimizer.pt")["optimizer"]
    frozen_count = sum(name.endswith("Wemb") or name.startswith("encoder_") for name in found)
    assert len(state["state"]) == len(found) - frozen_count
    # It begins better than a student that has everything to learn.
    main(arguments(files, tmp_path / "scratch", **shape, after="4u", optimizer_delay=1))
    assert records(tmp_path)[0]["ce-mean-words"] < records(tmp_path / "scratch")[0]["ce-mean-words"] - 0.5


def test_layers_of_the_teacher_that_also_runs_along(files: Files, teacher: Path, tmp_path: Path) -> None:
    shape = {"dim_emb": 48, "transformer_dim_ffn": 96, "enc_depth": 3}
    given = [*taught({"recipe": "hybrid"}, teacher), "--initialise", '{"decoder-layers": "first"}']
    main(arguments(files, tmp_path, *given, **shape, after="2u"))
    assert "word-kd" in records(tmp_path)[0]


@pytest.fixture(scope="module")
def stored(files: Files, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the teacher thinks of the corpus, 50 pieces at each position."""
    path = tmp_path_factory.mktemp("stored") / "distributions.zst"
    sides = ["--corpus-src", str(files.corpus[0]), "--corpus-trg", str(files.corpus[1])]
    vocabs = ["--src-vocab", str(files.vocabs[0]), "--trg-vocab", str(files.vocabs[1])]
    model = str(teacher / "final.model.npz.best-ce-mean-words.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMBECK_CPUS", "1")
        store_distributions(["--model", model, *vocabs, *sides, "--top-k", "50", "--output", str(path)])
    return path


def from_store(stored: Path, top_k: int = 50) -> list[str]:
    return [*taught({"recipe": "hybrid", "top-k": top_k}), "--teacher-distributions", "distilled", str(stored)]


@pytest.mark.parametrize("guided", [True, False])
def test_stored_distributions_teach_what_the_teacher_would(
    files: Files, teacher: Path, stored: Path, tmp_path: Path, guided: bool
) -> None:
    options: dict[str, Any] = {"guided_alignment": guided, "after": "4u"}
    main(arguments(files, tmp_path / "online", *taught({"recipe": "hybrid"}, teacher), **options))
    main(arguments(files, tmp_path / "stored", *from_store(stored), **options))
    online, found = records(tmp_path / "online")[0], records(tmp_path / "stored")[0]
    # Nearly all of the probability is in 50 of the 70 pieces; that the others count as one only brings both nearer.
    assert 0.9 * online["word-kd"] < found["word-kd"] < online["word-kd"]
    assert found["train-cost"] == pytest.approx(online["train-cost"], rel=0.01)


def test_stored_distributions_that_do_not_fit_are_refused(files: Files, stored: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stored distributions are of 50 pieces, but top-k is 8"):
        main(arguments(files, tmp_path / "count", *from_store(stored, 8), after="1u"))
    with pytest.raises(UserError, match="sentencepiece-alphas would change the pieces"):
        main(arguments(files, tmp_path / "sampled", *from_store(stored), sentencepiece_alphas=0.5, after="1u"))
    with pytest.raises(UserError, match="augmentation would change the pieces"):
        main([*arguments(files, tmp_path / "augmented", *from_store(stored), after="1u"), "--augmentation", "defaults"])
    lines = list(read_lines(stored))
    with write_lines(tmp_path / "shifted.zst") as shifted:
        for line in (*lines[1:], lines[0]):
            shifted.write(line)
    with pytest.raises(UserError, match="do not fit their sentence"):
        main(arguments(files, tmp_path / "shifted", *from_store(tmp_path / "shifted.zst"), after="1u"))
    with write_lines(tmp_path / "short.zst") as short:
        short.write(lines[0])
    with pytest.raises(UserError, match="equal length"):
        main(arguments(files, tmp_path / "short", *from_store(tmp_path / "short.zst"), after="1u"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (taught({"recipe": "hybrid", "top-k": 8}), "the corpus distilled has none: give --teacher-distributions"),
        (["--teacher-distributions", "distilled", "a.zst"], "give top-k"),
        (
            [*taught({"recipe": "hybrid", "top-k": 8}), "--teacher-distributions", "original", "a.zst"],
            "--teacher-distributions original: there is no such --corpus",
        ),
        (taught({"recipe": "hybrid"}), "recipe hybrid compares with a teacher: give --teacher"),
        (taught({"recipe": "word"}), "reads the corpora original, but distilled are given"),
        (taught({"recipe": "interpolation"}), "reads the corpora distilled and original, but distilled are given"),
        (taught({"recipe": "sequence"}, Path("teacher.npz")), "compares with none: leave it out"),
        (["--teacher", "teacher.npz"], "compares with none: leave it out"),
        (taught({"recipe": "hybird"}), "did you mean hybrid"),
        (["--initialise", "{}"], "not from which model: give --init or --teacher"),
        (["--init", "absent.npz"], "absent.npz does not exist"),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(
    files: Files, tmp_path: Path, more: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        main(arguments(files, tmp_path, *more, after="1u"))


def test_a_teacher_of_other_pieces_is_refused(files: Files, teacher: Path, tmp_path: Path) -> None:
    vocabs = ["--teacher-vocab", str(files.vocabs[1]), str(files.vocabs[0])]
    with pytest.raises(UserError, match="first difference is piece"):
        main(arguments(files, tmp_path, *taught({"recipe": "hybrid"}, teacher), *vocabs, after="1u"))
