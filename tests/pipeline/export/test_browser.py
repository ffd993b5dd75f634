"""The folder that the browser's engine loads; the engine itself is in test_browser_engine.py."""

import gzip
import hashlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browser_engine import needs_engine
from reports import STUDENT
from small_student import RECURRENT
from tiny_model import tiny_files, tiny_model, tiny_vocab, toy_pairs, trained_files, vocab_bytes, write_tiny

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
    write_json(tmp_path / "dev.metrics.json", STUDENT)
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
    assert found == {"metadata.json", "MODEL_CARD.md", *roles.values(), *(f"{name}.gz" for name in roles.values())}
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
    assert metadata["metrics"] == [STUDENT]
    assert (
        metadata["provenance"]["inputs"]["model"]["sha256"] == hashlib.sha256(tiny_files()[0].read_bytes()).hexdigest()
    )
    quantization = metadata["quantization"]
    assert quantization["sentences"] == 12 and 0 < quantization["mean-log-probability-difference"] < 0.25
    assert 0 < quantization["chrf-between"] <= 100 and quantization["chrf"] >= 0
    assert quantization["calibrated-on"] == "12 sentences of dev.en"
    model = npz.load(tiny_files()[0])
    sources = read_sample(tiny_vocab(), tmp_path / "dev.en").sources
    assert bergamot.load_alphas(folder / roles["model"]) == pytest.approx(calibrate(model, sources))
    assert len(lexicon.read(folder / roles["lex"]).of(10)) == 50


def test_the_card_tells_files_and_scores(tmp_path, flags):
    (tmp_path / "config.json").write_text('{"experiment": {"name": "toy"}}')
    run(flags, "--metrics", str(tmp_path / "dev.metrics.json"), "--config", str(tmp_path / "config.json"))
    card = (tmp_path / "browser/MODEL_CARD.md").read_text()
    size = (tmp_path / "browser/model.ende.intgemm.alphas.bin").stat().st_size
    assert f"| `model.ende.intgemm.alphas.bin` | the model in eight bits | {size / 1e6:.1f} MB |" in card
    assert "| gettext_toy | student | ctranslate2 float32 | 58.5 |" in card
    assert re.search(r"translates \d+ of 12 sentences as the float32 one does; chrF between", card)
    assert "of the experiment toy" in card


@pytest.mark.slow
def test_the_page_in_the_card_translates(tmp_path, flags):
    installed = needs_engine()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium to open the card's page in")
    model, vocab = trained_files()
    run({**flags, "--model": str(model), "--src-vocab": str(vocab), "--trg-vocab": str(vocab)})
    folder = tmp_path / "browser"
    (page,) = re.findall(r"```html\n(.*?)```", (folder / "MODEL_CARD.md").read_text(), re.DOTALL)
    tell = 'await fetch("/answer", { method: "POST", body: document.querySelector("p").textContent });'
    (folder / "translate.html").write_text(page.replace("</script>", f"{tell}\n</script>"))
    (folder / "node_modules").symlink_to(installed / "node_modules")
    answers: queue.Queue[str] = queue.Queue()

    class Handler(SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            answers.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    flags_of_chromium = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    url = f"http://127.0.0.1:{server.server_port}/translate.html"
    with (tmp_path / "chromium.log").open("w") as log:
        command = [chromium, *flags_of_chromium, url]
        browser = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        assert answers.get(timeout=60).strip(" …")
    finally:
        os.killpg(browser.pid, signal.SIGTERM)
        browser.wait()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("decoder", [{}, RECURRENT], ids=["self-attention", "ssru"])
def test_a_tiny_student_with_32000_pieces_is_small(tmp_path, decoder):
    layers = {"enc_depth": 6, "dec_depth": 2, "dim_emb": 256, "transformer_dim_ffn": 1536, "transformer_heads": 8}
    model = tiny_model(dim_vocabs=(32_000, 32_000), **layers, **decoder)
    path = tmp_path / "model.bin"
    bergamot.save(model, path, dict.fromkeys(bergamot.product_inputs(model.config), 10.0))
    assert 16.5e6 < path.stat().st_size <= 17.5e6


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
