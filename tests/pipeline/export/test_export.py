"""The folder for those who use a model."""

import hashlib
import json
import re
import subprocess
import sys

import pytest
from tiny_model import toy_pairs, trained_files

from pipeline.common.errors import UserError
from pipeline.export import export
from pipeline.quantize.quantize import quantize


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    model, vocab = trained_files()
    folder = tmp_path_factory.mktemp("quantized") / "int8"
    quantize(model, (vocab, vocab), None, folder)
    return folder


@pytest.fixture
def flags(tmp_path, quantized):
    model, vocab = trained_files()
    vocabs = ["--src-vocab", str(vocab), "--trg-vocab", str(vocab), "--src", "en", "--trg", "de"]
    output = ["--output-dir", str(tmp_path / "export")]
    return ["--model", str(model), "--quantized", str(quantized), *vocabs, *output]


def test_the_folder_is_complete_and_its_checksums_are_right(tmp_path, flags):
    metrics = {"name": "student", "dataset": "django", "chrf": {"score": 54.321}, "bleu": {"score": 30.0}}
    (tmp_path / "django.metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "lex.s2t.pruned.zst").write_bytes(b"shortlist")
    more = ["--metrics", str(tmp_path / "django.metrics.json"), "--shortlist", str(tmp_path / "lex.s2t.pruned.zst")]
    export.main([*flags, *more])
    folder = tmp_path / "export"
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    vocabs = [
        f"{place}/vocab.{lang}.spm" for place in (export.FLOAT32, export.INT8, export.MARIAN) for lang in ("en", "de")
    ]
    models = [f"{place}/{name}" for place in (export.FLOAT32, export.INT8) for name in ("model.bin", "config.json")]
    marian = ["marian/model.npz", "marian/decoder.yml", "marian/lex.s2t.pruned.zst"]
    assert {*vocabs, *models, *marian, "metadata.json", "MODEL_CARD.md"} < found.keys()
    metadata = json.loads(found["metadata.json"].read_text())
    assert metadata["files"].keys() == found.keys() - {"metadata.json", "MODEL_CARD.md"}
    for name, entry in metadata["files"].items():
        content = found[name].read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert metadata["metrics"] == [metrics]
    assert metadata["architecture"]["dim-emb"] == 32
    assert metadata["parameters"] == 400 * 32 + 400 + 6 * (4 * 32 * 33 + 64) + 4 * (2 * 32 * 64 + 64 + 32 + 64)
    assert "| django | student | 54.3 | 30.0 |" in found["MODEL_CARD.md"].read_text()


def test_the_code_in_the_card_translates(tmp_path, flags):
    export.main(flags)
    card = (tmp_path / "export/MODEL_CARD.md").read_text()
    assert "exported without an evaluation" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "export", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\['.+'\]\n", done.stdout)


def test_a_directory_for_transformers_on_request(tmp_path, flags, caplog):
    pytest.importorskip("transformers")
    for name, side in (("dev.en", 0), ("dev.de", 1)):
        (tmp_path / name).write_text("".join(f"{pair[side]}\n" for pair in toy_pairs(8, seed=2)))
    sample = ["--sample", str(tmp_path / "dev.en"), str(tmp_path / "dev.de")]
    with caplog.at_level("INFO"):
        export.main([*flags, "--huggingface", *sample])
    assert "CTranslate2 float32 against torch on 8 sentences of dev.en" in caplog.text
    assert "LimbeckMarianMTModel (trust_remote_code=True) on 8 sentences of dev.en" in caplog.text
    folder = tmp_path / "export"
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["bytes"]["huggingface"] > 0 and "huggingface/model.safetensors" in metadata["files"]
    assert "| `huggingface` |" in (folder / "MODEL_CARD.md").read_text()
    with pytest.raises(UserError, match="not 3 files"):
        export.main([*flags, *sample, str(tmp_path / "dev.en")])


def test_a_damaged_quantized_model_is_not_exported(tmp_path, flags, quantized):
    broken = tmp_path / "broken"
    broken.mkdir()
    flags[flags.index(str(quantized))] = str(broken)
    with pytest.raises(UserError, match=r"no model\.bin"):
        export.main(flags)
    for file in quantized.iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot load"):
        export.main(flags)
    assert not (tmp_path / "export").exists()
