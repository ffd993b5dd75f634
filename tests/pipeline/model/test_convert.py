"""One command from format to format."""

import json
import logging
import zipfile

import numpy as np
import pytest
from opus_model import write_opus_model
from tiny_model import tiny_model, toy_pairs, trained_files, trained_model, write_tiny

from pipeline.common.errors import UserError
from pipeline.model import convert, parity
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.formats import huggingface_check, marian, npz
from pipeline.model.vocab import Vocab


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for name, side in (("dev.en", 0), ("dev.de", 1)):
        (folder / name).write_text("".join(f"{pair[side]}\n" for pair in toy_pairs(12, seed=2)))
    return folder


@pytest.fixture
def run(caplog):
    """Runs the command; what it logged."""

    def command(*arguments):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            convert.main([str(argument) for argument in arguments])
        return caplog.text

    return command


def test_round_trip_through_every_format(tmp_path, text, run):
    pytest.importorskip("transformers")
    model, vocab = trained_files()
    vocabs = ["--src-vocab", vocab, "--trg-vocab", vocab]
    real = ["--sentences", text / "dev.en"]
    log = run(model, tmp_path / "npz", "--to", "npz", *vocabs, *real)
    assert "on 12 sentences of dev.en" in log and "differ by at most 0.0e+00" in log
    log = run(tmp_path / "npz", tmp_path / "hf", "--to", "huggingface", *real, "--references", text / "dev.de")
    assert "12/12 sentences are segmented as for Marian" in log
    assert "LimbeckMarianMTModel (trust_remote_code=True) on 12 sentences" in log
    assert (
        "chrF against reference translations" in log and "MarianTokenizer gives the vocabulary's ids for 12/12" in log
    )
    log = run(tmp_path / "hf", tmp_path / "again", "--to", "npz", *real)
    assert "hf in LimbeckMarianMTModel, against what was read of it, on 12 sentences" in log
    assert (tmp_path / "again/model.npz").read_bytes() == model.read_bytes()
    assert (tmp_path / "again/source.spm").read_bytes() == vocab.read_bytes()

    log = run(tmp_path / "again", tmp_path / "ct2", "--to", "ctranslate2", *real)
    assert "CTranslate2 float32 against torch on 12 sentences" in log and "beam-4 12/12" in log
    log = run(tmp_path / "again/model.npz", tmp_path / "int8", "--to", "ctranslate2-int8")
    assert "CTranslate2 int8 against torch on 32 rows of random pieces" in log
    assert ctranslate2_format.load(tmp_path / "int8").compute_type.startswith("int8")


def test_an_opus_zip_becomes_a_ctranslate2_model(tmp_path, run):
    opus = write_opus_model(tmp_path / "opus")
    with zipfile.ZipFile(tmp_path / "opus.zip", "w") as file:
        for source in opus.path.iterdir():
            file.write(source, source.name)
    texts = [f">>deu<< {source}" for source, _ in toy_pairs(10, seed=3)]
    (tmp_path / "dev").write_text("".join(f"{line}\n" for line in texts))
    log = run(tmp_path / "opus.zip", tmp_path / "ct2", "--to", "ctranslate2", "--sentences", tmp_path / "dev")
    assert "10/10 sentences are segmented as for Marian" in log
    pieces = json.loads((tmp_path / "ct2/shared_vocabulary.json").read_text())
    assert pieces[: len(opus.listed) - 2] == opus.listed[:-2] and "▁>>deu<<" in pieces


def test_an_opus_model_keeps_its_tags_for_transformers(tmp_path, run):
    pytest.importorskip("transformers")
    opus = write_opus_model(tmp_path / "opus")
    texts = [f">>deu<< {source}" for source, _ in toy_pairs(5, seed=3)]
    (tmp_path / "dev").write_text("".join(f"{line}\n" for line in texts))
    log = run(opus.path, tmp_path / "hf", "--to", "huggingface", "--sentences", tmp_path / "dev")
    assert "MarianTokenizer gives the vocabulary's ids for 5/5" in log
    tokenizer = huggingface_check.load_tokenizer(tmp_path / "hf")
    assert ">>deu<<" in tokenizer.supported_language_codes
    run(tmp_path / "hf", tmp_path / "again", "--to", "npz", "--sentences", tmp_path / "dev")
    first, again = marian.load(opus.path), npz.load(tmp_path / "again/model.npz")
    assert all(np.array_equal(a, npz.parameter_arrays(again)[name]) for name, a in npz.parameter_arrays(first).items())


def test_what_is_refused(tmp_path, text, run):
    model, vocab = trained_files()
    out = tmp_path / "out"
    vocabs = ["--src-vocab", vocab, "--trg-vocab", vocab]
    ctranslate2_format.save(trained_model(), tmp_path / "ct2", (vocab, vocab))
    write_tiny(tmp_path, tiny_model(transformer_decoder_autoreg="rnn", dec_cell="ssru"))
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").write_text("\n\n")
    for message, arguments in (
        ("does not exist", [tmp_path / "absent", out, "--to", "npz"]),
        ("no way back", [tmp_path / "ct2", out, "--to", "npz"]),
        ("has no vocabularies", [model.parent / "model.npz", out, "--to", "npz"]),
        ("are needed together", [model, out, "--to", "npz", "--src-vocab", vocab]),
        ("give both", [model, out, "--to", "npz", *vocabs, "--references", text / "dev.de"]),
        ("is a file", [model, tmp_path / "file", "--to", "npz", *vocabs]),
        ("looks like a file", [model, tmp_path / "new.npz", "--to", "npz", *vocabs]),
        ("holds no sentences", [model, out, "--to", "npz", *vocabs, "--sentences", tmp_path / "empty"]),
        ("are for a model.npz", [tmp_path / "ct2/..", out, "--to", "npz", *vocabs]),
        ("transformers has no recurrent decoder", [tmp_path / "model.npz", out, "--to", "huggingface", *vocabs]),
        ("CTranslate2 cannot compute a recurrent", [tmp_path / "model.npz", out, "--to", "ctranslate2", *vocabs]),
    ):
        with pytest.raises(UserError, match=message):
            run(*arguments)
        assert not out.exists()
    run(tmp_path / "model.npz", out, "--to", "npz", *vocabs)
    assert (out / "decoder.yml").is_file()


def test_the_comparison_tells_ties_from_differences():
    class Other:
        name = "other"

        def __init__(self, translations, shift):
            self.translations, self.shift = translations, shift

        def translate(self, sources, beam_size):
            return self.translations

        def score(self, sources, targets):
            return [[value + self.shift for value in row] for row in engine.score(sources, targets)]

    model, vocab = trained_model(), Vocab.load(trained_files()[1])
    engine = parity.TorchEngine(model)
    sources = vocab.encode([source for source, _ in toy_pairs(3, seed=2)], add_eos=False)
    greedy = engine.translate(sources, 1)
    sample = parity.Sample(sources, "3 toy sentences")
    same = parity.compare(engine, Other(greedy, 0.0), sample, beam=True)
    assert (same.largest_difference, same.same_greedy, same.ties) == (0, 3, 0)
    parity.EXACT.check(same, "it")
    for other in (Other(greedy, 0.001), Other([greedy[1], *greedy[1:]], 0.0), Other(greedy, float("nan"))):
        with pytest.raises(UserError, match="it does not compute the same model"):
            parity.EXACT.check(parity.compare(engine, other, sample), "it")


def test_equally_likely_pieces_are_a_tie():
    model = tiny_model()
    engine = parity.TorchEngine(model)
    with_twin = tiny_model()
    sources = [[5, 9, 11]]
    chosen = engine.translate(sources, 1)[0]
    twin = next(piece for piece in range(2, 400) if piece not in chosen)
    for name, axis in (("Wemb", 0), ("decoder_ff_logit_out_b", 1)):
        values = with_twin.get_parameter(name).data
        values.select(axis, twin).copy_(values.select(axis, chosen[0]))
    twins = parity.TorchEngine(with_twin)
    ours = twins.translate(sources, 1)[0]
    swapped = [{chosen[0]: twin, twin: chosen[0]}.get(piece, piece) for piece in ours]

    class Swapping:
        name = "swapping"
        score = staticmethod(twins.score)

        def translate(self, sources, beam_size):
            return [swapped]

    found = parity.compare(twins, Swapping(), parity.Sample(sources, "one row"))
    assert swapped != ours and (found.same_greedy, found.ties) == (0, 1)
    assert "(1 of the others part at a tie)" in found.describe()
    parity.EXACT.check(found, "it")
