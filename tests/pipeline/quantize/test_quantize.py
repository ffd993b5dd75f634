"""Eight bits."""

import json
import logging

import pytest
from tiny_model import tiny_model, tiny_vocab, toy_pairs, trained_files, vocab_bytes, write_tiny

from pipeline.common.errors import UserError
from pipeline.common.files import write_lines
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.quantize import quantize


@pytest.fixture(autouse=True)
def one_processor(monkeypatch):
    monkeypatch.setenv("LIMBECK_CPUS", "1")


@pytest.fixture
def vocabs(tmp_path):
    for name in ("vocab.en.spm", "vocab.de.spm"):
        (tmp_path / name).write_bytes(vocab_bytes())
    return ["--src-vocab", str(tmp_path / "vocab.en.spm"), "--trg-vocab", str(tmp_path / "vocab.de.spm")]


def test_the_directory_translates_by_itself_and_says_how_near_it_is(tmp_path, vocabs, caplog):
    model, _ = trained_files()
    with write_lines(tmp_path / "dev.zst") as sample:
        for source, _ in toy_pairs(60, seed=7):
            sample.write(source)
        sample.write("")
    output = tmp_path / "int8"
    with caplog.at_level(logging.INFO):
        quantize.main(
            ["--model", str(model), *vocabs, "--sample", str(tmp_path / "dev.zst"), "--output-dir", str(output)]
        )
    agreement = json.loads((output / "quantization.json").read_text())
    assert agreement["sentences"] == 60 and 20 < agreement["identical-to-float32"] <= 60
    assert f"{agreement['identical-to-float32']} of 60 sentences" in caplog.text
    assert (output / "vocab.en.spm").read_bytes() == vocab_bytes() == (output / "vocab.de.spm").read_bytes()
    positions = 1024 * 32 * 4  # in full precision in both
    assert (output / "model.bin").stat().st_size - positions < 0.4 * model.stat().st_size
    pieces = tiny_vocab().pieces([toy_pairs(1)[0][0]])
    assert ctranslate2_format.load(output).translate_batch(pieces)[0].hypotheses[0]


def test_without_a_sample_nothing_is_compared(tmp_path, vocabs, caplog):
    model, _ = trained_files()
    with caplog.at_level(logging.INFO):
        quantize.main(["--model", str(model), *vocabs, "--output-dir", str(tmp_path / "int8")])
    assert "not compared" in caplog.text
    assert not (tmp_path / "int8/quantization.json").exists()


def test_nothing_is_left_of_a_failure(tmp_path, vocabs):
    model, vocab = trained_files()
    with write_lines(tmp_path / "empty.zst") as sample:
        sample.write(" ")
    with pytest.raises(UserError, match="no text"):
        quantize.quantize(model, (vocab, vocab), tmp_path / "empty.zst", tmp_path / "int8")
    smaller, _ = write_tiny(tmp_path, tiny_model(dim_vocabs=(200, 200)))
    with pytest.raises(UserError, match="400 pieces"):
        quantize.quantize(smaller, (vocab, vocab), None, tmp_path / "int8")
    assert not [path for path in tmp_path.iterdir() if "int8" in path.name]


def test_two_vocabularies_of_one_name(tmp_path):
    model, vocab = trained_files()
    (tmp_path / vocab.name).write_bytes(b"another")
    with pytest.raises(UserError, match="different names"):
        quantize.quantize(model, (vocab, tmp_path / vocab.name), None, tmp_path / "int8")
