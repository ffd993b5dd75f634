"""pipeline.evaluate.evaluate: real (random) models through its command line."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import sentencepiece
import torch
from external_models import SOURCES, TARGETS, published

from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_lines
from pipeline.continuation.external import Languages, import_model
from pipeline.evaluate.decoders import Decoder
from pipeline.evaluate.evaluate import main
from pipeline.evaluate.loading import Source, load_translator, model_size
from pipeline.model.decoding import decoding_options
from pipeline.model.formats import ctranslate2, npz
from pipeline.model.shortlist import Candidates, Shortlist
from pipeline.model.vocab import Vocab

Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def evaluate(models: dict[str, Path], test_set: tuple[Path, Path], tmp_path: Path) -> Evaluate:
    """Runs the step on the named models and returns the metrics it wrote; flags can be added or replaced."""

    def run(*names: str, **flags: object) -> dict[str, Any]:
        given = {
            "name": "student",
            "src": "en",
            "trg": "de",
            "src-vocab": models["vocab"],
            "trg-vocab": models["vocab"],
            "dataset": "toy",
            "references-src": test_set[0],
            "references-trg": test_set[1],
            "output-prefix": tmp_path / "out" / "toy",
            "threads": 1,
            "speed-seconds": 0,  # measuring needs a process of its own; a few tests are about it
            **{key.replace("_", "-"): value for key, value in flags.items()},
        }
        arguments = [str(part) for key, value in given.items() if value is not None for part in (f"--{key}", value)]
        main([*arguments, *(part for name in names for part in ("--model", str(models[name])))])
        metrics: dict[str, Any] = json.loads(Path(f"{given['output-prefix']}.metrics.json").read_text("utf-8"))
        return metrics

    return run


def test_scores_are_sacrebleus_over_the_written_files(evaluate: Evaluate, tmp_path: Path) -> None:
    metrics = evaluate("first")
    hypotheses, references = (list(read_lines(tmp_path / "out" / f"toy.{end}")) for end in ("de.zst", "de.ref.zst"))
    assert metrics["chrf"]["score"] == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [references]).score, abs=1e-3)
    assert metrics["bleu"]["score"] == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references]).score, abs=1e-3)
    assert "nc:6|nw:0" in metrics["chrf"]["signature"]
    assert "tok:13a" in metrics["bleu"]["signature"]
    assert metrics["ter"]["score"] == pytest.approx(sacrebleu.corpus_ter(hypotheses, [references]).score, abs=1e-3)
    assert "tok:tercom" in metrics["ter"]["signature"]


def test_the_files_keep_the_test_sets_lines_and_order(
    evaluate: Evaluate, test_set: tuple[Path, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    metrics = evaluate("first", options='{"max-length-factor": 0.001}')  # at most 11 pieces
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "toy.de.ref.zst",
        "toy.de.zst",
        "toy.en.zst",
        "toy.metrics.json",
    ]
    assert list(read_lines(out / "toy.en.zst")) == list(read_lines(test_set[0]))
    assert list(read_lines(out / "toy.de.ref.zst")) == list(read_lines(test_set[1]))
    assert metrics["sentences"] == 6

    # Every line is what CTranslate2 makes of that very source, translated alone.
    ctranslate2.save(npz.load(models["first"]), tmp_path / "float32", (models["vocab"], models["vocab"]))
    translator = ctranslate2.load(tmp_path / "float32")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(models["vocab"]))
    for source, hypothesis in zip(read_lines(test_set[0]), read_lines(out / "toy.de.zst"), strict=True):
        if not source:
            assert hypothesis == ""
            continue
        pieces = processor.encode(source, out_type=str)
        alone = translator.translate_batch([pieces], beam_size=1, disable_unk=True, max_decoding_length=11)
        assert processor.decode(alone[0].hypotheses[0]) == hypothesis


def test_an_npz_knows_its_parameters_and_size(evaluate: Evaluate, models: dict[str, Path]) -> None:
    metrics = evaluate("first")
    with np.load(models["first"]) as arrays:
        assert metrics["parameters"] == sum(arrays[name].size for name in arrays.files if name != "special:model.yml")
    assert metrics["size-bytes"] == models["first"].stat().st_size
    assert metrics["engine"] == "ctranslate2 float32"


def test_an_int8_directory(evaluate: Evaluate, models: dict[str, Path]) -> None:
    metrics = evaluate("int8")
    assert metrics["engine"] == "ctranslate2 int8"
    assert metrics["parameters"] is None
    assert metrics["size-bytes"] == sum(file.stat().st_size for file in models["int8"].iterdir())


def test_a_recurrent_model_is_translated_by_torch(evaluate: Evaluate, models: dict[str, Path]) -> None:
    metrics = evaluate("recurrent")
    assert metrics["engine"] == "torch"
    assert metrics["parameters"] < evaluate("first")["parameters"]


def test_an_ensemble_of_one_model_twice_translates_like_that_model(evaluate: Evaluate, tmp_path: Path) -> None:
    options = '{"beam-size": 4}'
    single = evaluate("first", options=options)
    twice = evaluate("first", "first", options=options, output_prefix=tmp_path / "out" / "twice")
    other = evaluate("first", "second", options=options, output_prefix=tmp_path / "out" / "other")
    assert twice["engine"] == "torch ensemble"
    assert twice["chrf"]["score"] == pytest.approx(single["chrf"]["score"], abs=2.0)
    assert list(read_lines(tmp_path / "out" / "other.de.zst")) != list(read_lines(tmp_path / "out" / "twice.de.zst"))
    assert twice["size-bytes"] == 2 * single["size-bytes"]
    assert twice["parameters"] == 2 * single["parameters"]
    assert other["decoding"]["beam-size"] == 4


def test_speed_and_memory_are_said_with_all_that_they_depend_on(evaluate: Evaluate, tmp_path: Path) -> None:
    metrics = evaluate("first", threads=2, speed_seconds=0.2)
    speed, memory = metrics["speed"], metrics["memory"]
    assert speed["threads"] == 1
    assert speed["words-per-second"] > 0 and speed["words-per-second-single"] > 0
    assert speed["batch-size"] == 16
    latency = speed["latency-ms"]
    assert 0 < latency["p50"] == latency["median"] <= latency["p90"] <= latency["p95"] <= latency["p99"]
    assert speed["processor"]
    assert memory["peak-rss-bytes"] == memory["before-loading-bytes"] + memory["model-bytes"]
    assert set(metrics["measured"]) >= {"chrf", "bleu", "ter", "speed", "memory", "size-bytes", "parameters"}

    without = evaluate("first", output_prefix=tmp_path / "out" / "without")
    assert "speed" not in without and "memory" not in without["measured"]
    assert {key: without[key] for key in ("chrf", "bleu", "ter")} == {
        key: metrics[key] for key in ("chrf", "bleu", "ter")
    }
    with pytest.raises(UserError, match="--speed-seconds"):
        evaluate("first", speed_seconds=-1)


def test_threads_change_no_translation(evaluate: Evaluate, tmp_path: Path) -> None:
    evaluate("first")
    evaluate("first", threads=3, output_prefix=tmp_path / "out" / "three")
    assert list(read_lines(tmp_path / "out" / "toy.de.zst")) == list(read_lines(tmp_path / "out" / "three.de.zst"))


def test_options_reach_the_search(evaluate: Evaluate, tmp_path: Path) -> None:
    metrics = evaluate("first", options='{"max-length-factor": 0.1, "mini-batch-words": 5000, "word-penalty": 0}')
    assert metrics["decoding"]["max-length-factor"] == 0.1
    assert "mini-batch-words" not in metrics["decoding"]
    full = tmp_path / "out" / "full"
    evaluate("first", output_prefix=full)
    short = sum(map(len, read_lines(tmp_path / "out" / "toy.de.zst")))
    assert short < sum(map(len, read_lines(f"{full}.de.zst")))


def test_sources_too_long_for_the_model_are_counted(evaluate: Evaluate, tmp_path: Path) -> None:
    for name, line in (("long.en", "The house is small. " * 300), ("long.de", "Das Haus ist klein.")):
        with write_lines(tmp_path / name) as writer:
            writer.write(line)
    metrics = evaluate(
        "first",
        references_src=tmp_path / "long.en",
        references_trg=tmp_path / "long.de",
        options='{"max-length-factor": 0.001}',
    )
    assert metrics["cut-sources"] == 1
    assert evaluate("first", options='{"max-length": 3}')["cut-sources"] == 5


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ('{"beam-sise": 4}', "beam-sise"),
        ('{"beam-size": 0}', "beam-size"),
        ('{"beam-size": 2.5}', "beam-size"),
        ('{"normalize": -1}', "normalize"),
        ('{"allow-unk": 1}', "allow-unk"),
        ('{"word-penalty": 0.5}', "word-penalty"),
        ('{"max-length": "long"}', "max-length"),
        ("[1]", "mapping"),
    ],
)
def test_wrong_options(evaluate: Evaluate, options: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        evaluate("first", options=options)


def test_sides_of_unequal_length(evaluate: Evaluate, test_set: tuple[Path, Path], tmp_path: Path) -> None:
    with write_lines(tmp_path / "short.de") as writer:
        writer.write("Das Haus ist klein.")
    with pytest.raises(UserError, match="equal length"):
        evaluate("first", references_trg=tmp_path / "short.de")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lines", [[], ["", "  "]])
def test_a_test_set_without_sentences(evaluate: Evaluate, tmp_path: Path, lines: list[str]) -> None:
    for name in ("none.en", "none.de"):
        with write_lines(tmp_path / name) as writer:
            for line in lines:
                writer.write(line)
    with pytest.raises(UserError, match="no sentences"):
        evaluate("first", references_src=tmp_path / "none.en", references_trg=tmp_path / "none.de")


def test_a_vocabulary_of_another_model(evaluate: Evaluate, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("other words than those of the models here\n" * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "other"), vocab_size=30, hard_vocab_limit=False,
        bos_id=-1, pad_id=-1, eos_id=0, unk_id=1, minloglevel=2,
    )  # fmt: skip
    for names in (["first"], ["int8"], ["first", "second"]):
        with pytest.raises(UserError, match="trained with"):
            evaluate(*names, src_vocab=tmp_path / "other.model", trg_vocab=tmp_path / "other.model")


def test_models_that_cannot_be_evaluated(evaluate: Evaluate, models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ensemble must be"):
        evaluate("first", "int8")
    with pytest.raises(UserError, match="does not exist"):
        main(
            f"--name x --model {tmp_path}/absent.npz --src en --trg de --dataset d --src-vocab {models['vocab']} "
            f"--trg-vocab {models['vocab']} --references-src {tmp_path}/test.en.zst "
            f"--references-trg {tmp_path}/test.de.zst --output-prefix {tmp_path}/x".split()
        )


@pytest.fixture(scope="session")
def external(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("external") / "model"
    torch.manual_seed(3)  # whichever tests came before, the model learns its sentences by heart
    import_model(str(published("marian-tags")), "huggingface", None, Languages(None, "deu"), folder)
    return folder


def test_a_model_of_another_maker(
    evaluate: Evaluate, models: dict[str, Path], external: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, lines in (("toy.en", SOURCES), ("toy.de", TARGETS)):
        with write_lines(tmp_path / name) as writer:
            for line in lines:
                writer.write(line)
    models = models | {"external": external}
    given = {
        "references_src": tmp_path / "toy.en",
        "references_trg": tmp_path / "toy.de",
        "src_vocab": None,
        "trg_vocab": None,
        "model": external,
    }
    metrics = evaluate(**given, threads=2)
    assert metrics["chrf"]["score"] == 100  # it learnt them by heart
    assert metrics["engine"] == "ctranslate2 float32"
    assert metrics["size-bytes"] == sum(file.stat().st_size for file in external.iterdir())
    assert metrics["parameters"] is None
    assert evaluate(**given, options='{"precision": "int8"}')["engine"] == "ctranslate2 int8"
    assert evaluate(**given, options='{"max-length": 4}')["cut-sources"] > 0
    with caplog.at_level("INFO"):
        assert evaluate(**given, options='{"precision": "float16"}')["engine"] == "ctranslate2 float32"
    assert "the processor, which does not compute in float16" in caplog.text
    with pytest.raises(UserError, match="leave --src-vocab and --trg-vocab away"):
        evaluate(**{**given, "src_vocab": models["vocab"]})
    with pytest.raises(UserError, match="cannot vote"):
        evaluate("first", **given)


def test_a_prefix_stands_before_every_source(evaluate: Evaluate, test_set: tuple[Path, Path], tmp_path: Path) -> None:
    evaluate("first", source_prefix="Books!")
    prefixed = list(read_lines(tmp_path / "out" / "toy.de.zst"))
    assert list(read_lines(tmp_path / "out" / "toy.en.zst")) == list(read_lines(test_set[0]))
    with write_lines(tmp_path / "prefixed.en") as writer:
        for line in read_lines(test_set[0]):
            writer.write(f"Books! {line}" if line else line)
    evaluate("first", references_src=tmp_path / "prefixed.en")
    assert list(read_lines(tmp_path / "out" / "toy.de.zst")) == prefixed


def write_shortlist(path: Path, vocab: Path, entries: list[tuple[int, int]]) -> Path:
    """A shortlist of source and target ids."""
    pieces = Vocab.load(vocab).all_pieces
    with write_lines(path) as writer:
        for source, target in entries:
            writer.write(f"{pieces[target]} {pieces[source]} 0.50000000")
    return path


@pytest.mark.parametrize("names", [["first"], ["int8"], ["recurrent"], ["first", "second"]], ids="+".join)
def test_a_shortlist_restricts_every_engine(
    evaluate: Evaluate, models: dict[str, Path], test_set: tuple[Path, Path], tmp_path: Path, names: list[str]
) -> None:
    vocab = Vocab.load(models["vocab"])
    shortlist = write_shortlist(tmp_path / "lex.zst", models["vocab"], [(5, 6), (20, 60)])
    options = {"options": '{"max-length-factor": 0.5}'}
    files_before = sorted(models["int8"].iterdir())
    free = evaluate(*names, **options)
    assert "shortlist" not in free["decoding"]
    translations = list(read_lines(tmp_path / "out" / "toy.de.zst"))

    everything = evaluate(*names, **options, shortlist=shortlist, shortlist_first=len(vocab), shortlist_best=1)
    assert everything["decoding"] == free["decoding"] | {"shortlist": {"first": len(vocab), "best": 1}}
    assert list(read_lines(tmp_path / "out" / "toy.de.zst")) == translations

    metrics = evaluate(*names, **options, shortlist=shortlist, shortlist_first=12)
    assert metrics["decoding"]["shortlist"] == {"first": 12, "best": 50}
    assert sorted(models["int8"].iterdir()) == files_before

    def decoder(used: Shortlist | None) -> Decoder:
        folder = tmp_path / f"decoder-{used is None}"
        options = decoding_options({}, beam_size=1, max_length=100)
        source = Source([models[name] for name in names], ([models["vocab"]], [models["vocab"]]), "", options, folder)
        return load_translator(replace(source, shortlist=used), threads=1).decoder

    # Pieces that the models do not like to say by themselves.
    batch = [[60, 61, 62], [63, 64]]
    free_pieces = {number for ids in decoder(None).decode(batch) for number in ids}
    wanted = Shortlist(shortlist, first=2)
    allowed = set(Candidates(wanted, (vocab, vocab)).of(batch).tolist())
    assert {0, 1, 60, 61, 62, 63, 64} <= allowed and len(allowed) == 8
    assert not free_pieces <= allowed
    found = decoder(wanted).decode(batch)
    assert {number for ids in found for number in ids} <= allowed and all(found)


def test_a_models_size_is_the_same_with_what_an_export_lays_beside_it(models: dict[str, Path], tmp_path: Path) -> None:
    for file in models["int8"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    before = model_size([tmp_path])
    for name in ("vocab.en.spm", "vmap.txt"):
        (tmp_path / name).write_text("beside it")
    assert model_size([tmp_path]) == before == model_size([models["int8"]])


def test_speed_is_measured_with_the_shortlist(evaluate: Evaluate, models: dict[str, Path], tmp_path: Path) -> None:
    shortlist = write_shortlist(tmp_path / "lex.zst", models["vocab"], [(5, 6)])
    metrics = evaluate("int8", shortlist=shortlist, speed_seconds=0.2)
    assert metrics["speed"]["words-per-second"] > 0
    assert metrics["decoding"]["shortlist"] == {"first": 50, "best": 50}


def test_shortlists_that_cannot_be_used(
    evaluate: Evaluate, models: dict[str, Path], external: Path, tmp_path: Path
) -> None:
    shortlist = write_shortlist(tmp_path / "lex.zst", models["vocab"], [(5, 6)])
    with write_lines(tmp_path / "other.zst") as writer:
        writer.write("▁nothing ▁such 0.5")
    for name in ("first", "int8", "recurrent"):
        with pytest.raises(UserError, match="'▁such' is no piece of its vocabulary"):
            evaluate(name, shortlist=tmp_path / "other.zst")
    with pytest.raises(UserError, match=r"none\.zst does not exist"):
        evaluate("first", shortlist=tmp_path / "none.zst")
    with pytest.raises(UserError, match="--shortlist-best must be at least 1, found 0"):
        evaluate("first", shortlist=shortlist, shortlist_best=0)
    with pytest.raises(UserError, match="name one with --shortlist"):
        evaluate("first", shortlist_first=60)
    with pytest.raises(UserError, match="a model of another maker, with vocabularies of its own"):
        evaluate(model=external, src_vocab=None, trg_vocab=None, shortlist=shortlist)


def test_the_command_ends_in_one_sentence(models: dict[str, Path], tmp_path: Path) -> None:
    command = (
        f"{sys.executable} -m pipeline.evaluate.evaluate --name x --model {models['first']} --src en --trg de "
        f"--dataset d --src-vocab {models['vocab']} --trg-vocab {models['vocab']} --references-src {tmp_path}/no.en "
        f"--references-trg {tmp_path}/no.de --output-prefix {tmp_path}/x"
    )
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [f"error: {tmp_path}/no.en does not exist"]
