"""pipeline.evaluate.browser: a (random) model in the browser's engine, through the command line."""

import json
from pathlib import Path

import pytest
import sacrebleu
from browser_engine import OPTIONS, Job, needs_engine, tiny_export, translate_in_node
from tiny_model import toy_pairs, vocab_bytes

from pipeline.common.corpus import write_columns
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines
from pipeline.evaluate.browser import decoding, main
from pipeline.model.browser_engine import ModelFiles, engine_version

PAIRS = [*toy_pairs(3, seed=9), ("", ""), ("<b>zu & 'a'", "日本語")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "vocab.spm").write_bytes(vocab_bytes())
    return tiny_export(folder / "browser", [folder / "vocab.spm"])


@pytest.fixture
def evaluate(model, tmp_path):
    """Runs the step and returns the metrics that it wrote; flags can be added or replaced."""
    with write_columns(tmp_path / "test.en.zst", tmp_path / "test.de.zst") as file:
        for pair in PAIRS:
            file.write(*pair)

    def run(out="out", **flags):
        given = {
            "name": "student-browser",
            "model": model,
            "src": "en",
            "trg": "de",
            "dataset": "toy",
            "references-src": tmp_path / "test.en.zst",
            "references-trg": tmp_path / "test.de.zst",
            "output-prefix": tmp_path / out / "toy",
            "speed-seconds": 0,
            **{key.replace("_", "-"): value for key, value in flags.items()},
        }
        main([str(part) for key, value in given.items() for part in (f"--{key}", value)])
        return json.loads(Path(f"{given['output-prefix']}.metrics.json").read_text("utf-8"))

    return run


def test_what_is_scored_is_what_the_engine_translates(evaluate, model, tmp_path):
    needs_engine()
    metrics = evaluate()
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "toy.de.ref.zst",
        "toy.de.zst",
        "toy.en.zst",
        "toy.metrics.json",
    ]
    assert list(zip(*(read_lines(out / f"toy.{end}") for end in ("en.zst", "de.ref.zst")), strict=True)) == PAIRS
    hypotheses = list(read_lines(out / "toy.de.zst"))
    files = model / "model.ende.intgemm.alphas.bin", [model / "vocab.ende.spm"]
    (alone,) = translate_in_node(Job(*files, [source for source, _ in PAIRS]))
    # A random model's translations end where they are cut, and in a batch the longest source says where.
    assert all(text.startswith(own) for text, own in zip(hypotheses, alone, strict=True))
    assert [bool(text) for text in hypotheses] == [bool(source) for source, _ in PAIRS]
    assert len({text[:20] for text in hypotheses}) > 2
    references = [[reference for _, reference in PAIRS]]
    assert metrics["chrf"]["score"] == pytest.approx(sacrebleu.corpus_chrf(hypotheses, references).score, abs=1e-3)
    assert {"bleu", "ter"} <= metrics.keys()
    assert metrics["engine"] == f"bergamot wasm {engine_version()} int8"
    assert metrics["size-bytes"] == files[0].stat().st_size  # as of other engines, without the vocabularies
    assert metrics["parameters"] == 1234
    assert metrics["decoding"]["beam-size"] == OPTIONS["beam-size"]
    assert metrics["versions"]["bergamot"] == engine_version()
    # Once more, the same bytes; now speed and memory are measured, too.
    again = evaluate("again", speed_seconds=0.4)
    assert (tmp_path / "again/toy.de.zst").read_bytes() == (out / "toy.de.zst").read_bytes()
    assert {key for key in again if again[key] != metrics.get(key)} == {"speed", "memory", "measured"}
    speed, memory = again["speed"], again["memory"]
    assert speed["threads"] == 1
    assert speed["words-per-second"] > 0 < speed["words-per-second-single"]
    assert 0 < speed["latency-ms"]["p50"] <= speed["latency-ms"]["p99"]
    assert 20e6 < memory["before-loading-bytes"] < memory["peak-rss-bytes"] < 1e9
    assert memory["model-bytes"] == memory["peak-rss-bytes"] - memory["before-loading-bytes"]
    assert again["measured"].keys() >= {"speed", "memory", "size-bytes", "chrf"}
    assert "Node" in again["measured"]["memory"]


def test_a_shortlist_is_told_as_of_other_engines(model, tmp_path):
    files = ModelFiles.of_export(model)
    assert "shortlist" not in decoding(files)
    sizes = {"first": 30, "best": 20}
    files = ModelFiles(files.model, files.vocabs, files.options, tmp_path / "lex.bin", {"shortlist": sizes})
    assert decoding(files)["shortlist"] == sizes


def test_wrong_input_is_named_before_anything_is_translated(evaluate, tmp_path):
    with pytest.raises(UserError, match="is no export for the browser"):
        evaluate(model=tmp_path)
    with pytest.raises(UserError, match="translates from en to de, not from de to en"):
        evaluate(src="de", trg="en")
    with pytest.raises(UserError, match="must not be negative"):
        evaluate(speed_seconds=-1)
    assert not (tmp_path / "out").exists()
