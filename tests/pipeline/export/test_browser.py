"""The folder that the browser's engine loads; the engine itself is in test_browser_engine.py."""

import gzip
import hashlib
import json
import shutil

import pytest
from tiny_model import tiny_files, tiny_model, tiny_vocab, toy_pairs, vocab_bytes, write_tiny

from pipeline.common.errors import UserError
from pipeline.common.files import write_json, write_lines
from pipeline.export import browser
from pipeline.model.calibration import calibrate
from pipeline.model.formats import bergamot, lexicon, npz
from pipeline.model.parity import read_sample
from pipeline.model.quantization import Quantization, QuantizedTransformer, save_model
from pipeline.vocab.build import train


@pytest.fixture
def flags(tmp_path):
    model, vocab = tiny_files()
    for name, side in (("dev.en", 0), ("dev.de", 1)):
        with write_lines(tmp_path / name) as file:
            for pair in toy_pairs(12, seed=3):
                file.write(pair[side])
    piece = tiny_vocab().all_pieces
    with write_lines(tmp_path / "lex.s2t.pruned.zst") as file:
        for source in range(2, 400):
            for target in range(2, 90):
                file.write(f"{piece[(source + target) % 398 + 2]} {piece[source]} {1 / target:.8f}")
    write_json(tmp_path / "dev.metrics.json", {"name": "student", "chrf": {"score": 54.3}})
    return {
        "--model": str(model),
        "--src-vocab": str(vocab),
        "--trg-vocab": str(vocab),
        "--src": "en",
        "--trg": "de",
        "--sample": str(tmp_path / "dev.en"),
        "--shortlist": str(tmp_path / "lex.s2t.pruned.zst"),
        "--output-dir": str(tmp_path / "browser"),
    }


def run(flags, *more):
    browser.main([*(word for pair in flags.items() for word in pair), *more])


def test_everything_is_there_and_described(tmp_path, flags, caplog):
    more = ["--sample", str(tmp_path / "dev.en"), str(tmp_path / "dev.de")]
    with caplog.at_level("INFO"):
        run(flags, *more, "--metrics", str(tmp_path / "dev.metrics.json"))
    assert "Bergamot int8, read back, against torch on 12 sentences of dev.en" in caplog.text
    assert "chrF between" in caplog.text and "int8" in caplog.text
    folder = tmp_path / "browser"
    roles = {
        "model": "model.ende.intgemm.alphas.bin",
        "vocab": "vocab.ende.spm",
        "lex": "lex.50.50.ende.s2t.bin",
    }
    found = {path.name for path in folder.iterdir()}
    assert found == {"metadata.json", *roles.values(), *(f"{name}.gz" for name in roles.values())}
    metadata = json.loads((folder / "metadata.json").read_text())
    assert {role: file["name"] for role, file in metadata["files"].items()} == roles
    for file in metadata["files"].values():
        plain, zipped = (folder / file["name"]).read_bytes(), (folder / file["gzip"]["name"]).read_bytes()
        assert gzip.decompress(zipped) == plain
        assert (file["bytes"], file["gzip"]["bytes"]) == (len(plain), len(zipped))
        assert file["sha256"] == hashlib.sha256(plain).hexdigest()
        assert file["gzip"]["sha256"] == hashlib.sha256(zipped).hexdigest()
    assert metadata["bytes"] == sum((folder / name).stat().st_size for name in roles.values())
    assert (metadata["src"], metadata["trg"]) == ("en", "de")
    assert metadata["architecture"]["dim-emb"] == 32 and metadata["parameters"] > 400 * 32
    assert metadata["engine-options"]["gemm-precision"] == "int8shiftAlphaAll"
    assert metadata["metrics"] == [{"name": "student", "chrf": {"score": 54.3}}]
    assert metadata["inputs"]["model"]["sha256"] == hashlib.sha256(tiny_files()[0].read_bytes()).hexdigest()
    quantization = metadata["quantization"]
    assert quantization["sentences"] == 12 and 0 < quantization["mean-log-probability-difference"] < 0.25
    assert 0 < quantization["chrf-between"] <= 100 and quantization["chrf"] >= 0
    assert quantization["calibrated-on"] == "12 sentences of dev.en"
    model = npz.load(tiny_files()[0])
    sources = read_sample(tiny_vocab(), tmp_path / "dev.en").sources
    assert bergamot.load_alphas(folder / roles["model"]) == pytest.approx(calibrate(model, sources))
    assert len(lexicon.read(folder / roles["lex"]).of(10)) == 50


def test_the_same_input_gives_the_same_bytes(tmp_path, flags):
    run(flags)
    run({**flags, "--output-dir": str(tmp_path / "again")})
    for file in (tmp_path / "browser").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_two_vocabularies_another_size_of_shortlist_and_a_recurrent_decoder(tmp_path, flags):
    small = train((pair[1] for pair in toy_pairs(1500)), 296, "nmt_nfkc", ())
    (tmp_path / "vocab.de.spm").write_bytes(small)
    changes = {"tied_embeddings_all": False, "tied_embeddings": True, "dim_vocabs": (400, 296)}
    model = tiny_model(**changes, transformer_decoder_autoreg="rnn", dec_cell="ssru")
    npz.save(model, tmp_path / "ssru.npz")
    with write_lines(tmp_path / "lex.s2t.pruned.zst") as file:
        file.write(f"▁ {tiny_vocab().all_pieces[20]} 0.5")
    changed = {"--model": str(tmp_path / "ssru.npz"), "--trg-vocab": str(tmp_path / "vocab.de.spm")}
    run({**flags, **changed}, "--shortlist-first", "30", "--shortlist-best", "7")
    folder = tmp_path / "browser"
    assert (folder / "srcvocab.ende.spm").read_bytes() == vocab_bytes()
    assert (folder / "trgvocab.ende.spm").read_bytes() == small
    made = lexicon.read(folder / "lex.30.7.ende.s2t.bin")
    assert (made.first, made.best, len(made)) == (30, 7, 400)
    assert bergamot.load(folder / "model.ende.intgemm.alphas.bin").config == model.config
    run({**flags, "--trg-vocab": flags["--trg-vocab"], "--output-dir": str(tmp_path / "other")})


def test_a_fine_tuned_model_brings_its_own_ranges(tmp_path, flags):
    model = tiny_model()
    sources = read_sample(tiny_vocab(), tmp_path / "dev.en").sources
    own = {name: 0.9 * alpha for name, alpha in calibrate(model, sources).items()}
    save_model(QuantizedTransformer.of(model, Quantization("browser", alphas=own)), tmp_path / "tuned.npz")
    flags.pop("--shortlist")
    run({**flags, "--model": str(tmp_path / "tuned.npz")})
    assert bergamot.load_alphas(tmp_path / "browser/model.ende.intgemm.alphas.bin") == pytest.approx(own)
    metadata = json.loads((tmp_path / "browser/metadata.json").read_text())
    assert metadata["quantization"]["calibrated-on"] is None
    assert metadata["shortlist"] is None and "lex" not in metadata["files"]


def test_nothing_is_left_of_a_failure(tmp_path, flags):
    pre_norm = {"transformer_preprocess": "n", "transformer_postprocess": "da", "transformer_postprocess_top": "n"}
    other = tmp_path / "pre-norm"
    other.mkdir()
    with pytest.raises(UserError, match="normalises the queries alone"):
        run({**flags, "--model": str(write_tiny(other, tiny_model(**pre_norm))[0])})
    with pytest.raises(UserError, match="200"):
        run({**flags, "--model": str(write_tiny(other, tiny_model(dim_vocabs=(200, 200)))[0])})
    shutil.copyfile(tmp_path / "dev.en", tmp_path / "lex.s2t.pruned.zst.txt")
    with pytest.raises(UserError, match="line 1"):
        run({**flags, "--shortlist": str(tmp_path / "lex.s2t.pruned.zst.txt")})
    with pytest.raises(UserError, match="not 3 files"):
        run(flags, "--sample", *[str(tmp_path / "dev.en")] * 3)
    wild = dict.fromkeys(bergamot.product_inputs(tiny_model().config), 0.001)
    save_model(QuantizedTransformer.of(tiny_model(), Quantization("browser", alphas=wild)), tmp_path / "wild.npz")
    with pytest.raises(UserError, match="does not compute the same model"):
        run({**flags, "--model": str(tmp_path / "wild.npz")})
    assert not [path for path in tmp_path.iterdir() if "browser" in path.name]
