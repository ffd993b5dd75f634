"""The folder for those who use a model."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from reports import BACKWARD, INT8, STUDENT, TEACHER, significance_of
from tiny_model import tiny_files, tiny_model, tiny_vocab, toy_pairs, trained_files, write_tiny

from pipeline.common.errors import UserError
from pipeline.common.files import write_json, write_lines
from pipeline.export import export
from pipeline.model.formats import huggingface, npz
from pipeline.quantize.quantize import quantize

SSRU = {"transformer_decoder_autoreg": "rnn", "dec_cell": "ssru"}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    model, vocab = trained_files()
    folder = tmp_path_factory.mktemp("quantized") / "int8"
    quantize(model, (vocab, vocab), None, folder)
    return folder


def common_flags(folder):
    vocab = str(trained_files()[1])
    return ["--src-vocab", vocab, "--trg-vocab", vocab, "--src", "en", "--trg", "de", "--output-dir", str(folder)]


@pytest.fixture
def flags(tmp_path, quantized):
    return ["--model", str(trained_files()[0]), "--quantized", str(quantized), *common_flags(tmp_path / "export")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, quantized):
    """An export with all that it can be given."""
    folder = tmp_path_factory.mktemp("exported")
    pieces = tiny_vocab().all_pieces
    with write_lines(folder / "lex.s2t.pruned.zst") as file:
        for source, target in ((40, 50), (41, 51), (41, 52)):
            file.write(f"{pieces[target]} {pieces[source]} 0.5")
    for name, side in (("dev.en", 0), ("dev.de", 1)):
        (folder / name).write_text("".join(f"{pair[side]}\n" for pair in toy_pairs(8, seed=2)))
    figures = [TEACHER, STUDENT, INT8, BACKWARD]
    for number, values in enumerate(figures):
        write_json(folder / f"{number}.metrics.json", values)
    write_json(
        folder / "toy.significance.json", significance_of("teacher-1", "student", delta=-1.5, low=-2, high=-1, p=0.001)
    )
    config = {"experiment": {"name": "toy"}, "datasets": {"train": ["url_https://me:secret@host/a.tmx"], "test": None}}
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    export.main(
        [
            *["--model", str(trained_files()[0]), "--quantized", str(quantized), *common_flags(folder / "export")],
            *["--shortlist", str(folder / "lex.s2t.pruned.zst"), "--shortlist-first", "10", "--shortlist-best", "1"],
            *["--sample", str(folder / "dev.en"), str(folder / "dev.de")],
            *["--metrics", *(str(folder / f"{number}.metrics.json") for number in range(len(figures)))],
            *["--significance", str(folder / "toy.significance.json"), "--config", str(folder / "config.yml")],
        ]
    )
    return folder / "export"


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_the_folder_is_complete_and_its_checksums_are_right(exported):
    found = files_in(exported)
    vocabs = [
        f"{place}/vocab.{lang}.spm" for place in (export.FLOAT32, export.INT8, export.MARIAN) for lang in ["en", "de"]
    ]
    models = [
        f"{place}/{name}"
        for place in (export.FLOAT32, export.INT8)
        for name in ("model.bin", "config.json", "vmap.txt")
    ]
    marian = ["marian/model.npz", "marian/decoder.yml", "marian/lex.s2t.pruned.zst"]
    weights = ["model.safetensors", "config.json", "generation_config.json", "tokenizer_config.json", "README.md"]
    tokenizer = ["source.spm", "target.spm", "vocab.json", "modeling_limbeck_marian.py"]
    transformers = [f"huggingface/{name}" for name in (*weights, *tokenizer)]
    shared = {f"{place}/shared_vocabulary.json" for place in (export.FLOAT32, export.INT8)}
    assert found.keys() - shared == {*vocabs, *models, *marian, *transformers, "metadata.json", "MODEL_CARD.md"}
    metadata = json.loads(found["metadata.json"].read_text())
    assert metadata["files"].keys() == found.keys() - {"metadata.json", "MODEL_CARD.md"}
    for name, entry in metadata["files"].items():
        content = found[name].read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert metadata["metrics"] == [TEACHER, STUDENT, INT8, BACKWARD]
    assert metadata["architecture"]["dim-emb"] == 32 and metadata["shared-vocabulary"]
    assert metadata["parameters"] == 400 * 32 + 400 + 6 * (4 * 32 * 33 + 64) + 4 * (2 * 32 * 64 + 64 + 32 + 64)
    assert metadata["unavailable"] == {} and metadata["bytes"].keys() == set(export._USES)


def test_the_vocabulary_maps_have_the_sizes_asked_for(exported):
    lines = dict(line.split("\t") for line in (exported / "ctranslate2/int8/vmap.txt").read_text().splitlines())
    pieces = tiny_vocab().all_pieces
    assert lines[""].split(" ") == pieces[:10]
    assert lines[pieces[41]].split(" ")[1:] == [pieces[51]]  # after the copy of itself
    assert (exported / "ctranslate2/float32/vmap.txt").read_bytes() == (
        exported / "ctranslate2/int8/vmap.txt"
    ).read_bytes()


def test_the_card_tells_the_scores_the_differences_and_where_it_comes_from(exported, quantized):
    card = (exported / "MODEL_CARD.md").read_text()
    row = "| gettext_toy | student-int8 | ctranslate2 int8 | 58.3 | 29.1 | 7,500 | 1.3 ms | 16.0 MB |"
    assert row in card.splitlines()
    assert "| gettext_toy | teacher-1 | student | −1.50 (−2.00 … −1.00, p = 0.001) |" in card
    assert "| gettext_toy | student | student-int8 | −0.20 |" in card
    assert "| 20× | 4× |" in card and "backward" not in card
    assert "`nrefs:1|nc:6|nw:0|version:2.6.0`" in card and "of Toy CPU" in card
    assert "- train: `url_https://host/a.tmx`" in card and "secret" not in card
    assert "secret" not in (exported / "metadata.json").read_text()
    provenance = json.loads((exported / "metadata.json").read_text())["provenance"]
    digest = hashlib.sha256((quantized / "model.bin").read_bytes()).hexdigest()
    assert provenance["inputs"]["quantized"] == {"name": "model.bin", "sha256": digest} and digest in card
    assert provenance["config"]["experiment"] == {"name": "toy"} and "torch" in provenance["versions"]
    hub_card = (exported / "huggingface/README.md").read_text()
    assert hub_card.startswith("---\nlibrary_name: transformers") and row in hub_card and digest in hub_card


def code_blocks(folder, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", (folder / "MODEL_CARD.md").read_text(), re.DOTALL)


def run_code(folder, code):
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_in_the_card_translates(exported):
    pytest.importorskip("transformers")
    ctranslate2, transformers = code_blocks(exported)
    found = run_code(exported, ctranslate2)
    assert re.fullmatch(r"\['.+'\]\n", found)
    mapped = ctranslate2.replace("beam_size=1", "beam_size=1, use_vmap=True")
    assert re.fullmatch(r"\['.+'\]\n", run_code(exported, mapped))
    exact = run_code(exported, ctranslate2.replace("/int8", "/float32"))
    assert run_code(exported, transformers) == exact


def test_without_transformers_the_directory_is_written_and_that_is_said(tmp_path, flags, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "transformers", None)
    export.main(flags)
    assert "was not compared with the model: transformers cannot be imported" in caplog.text
    folder = tmp_path / "export/huggingface"
    assert "It was not measured." in (folder / "README.md").read_text()
    assert "exported without an evaluation" in (tmp_path / "export/MODEL_CARD.md").read_text()
    loaded = huggingface.load(folder).state_dict()
    for name, value in npz.load(trained_files()[0]).state_dict().items():
        assert value.equal(loaded[name]), name


def test_the_comparisons_are_logged(tmp_path, flags, caplog):
    pytest.importorskip("transformers")
    with caplog.at_level("INFO"):
        export.main(flags)
    for name in ("CTranslate2 float32", "CTranslate2 int8", "LimbeckMarianMTModel (trust_remote_code=True)"):
        assert re.search(rf"{re.escape(name)} .*on 32 rows of random pieces", caplog.text)
    with pytest.raises(UserError, match="not 3 files"):
        export.main([*flags, "--sample", "a", "b", "c"])


def test_what_engines_cannot_compute_is_named(tmp_path, caplog):
    model, _ = write_tiny(tmp_path, tiny_model(**SSRU))
    export.main(["--model", str(model), *common_flags(tmp_path / "export")])
    folder = tmp_path / "export"
    assert {path.name for path in folder.iterdir()} == {"marian", "metadata.json", "MODEL_CARD.md"}
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["unavailable"].keys() == {"ctranslate2", "huggingface"}
    assert all("recurrent decoder" in reason for reason in metadata["unavailable"].values())
    card = (folder / "MODEL_CARD.md").read_text()
    assert "- CTranslate2: CTranslate2 cannot compute a recurrent decoder" in card and "recurrent (SSRU)" in card
    assert code_blocks(folder) == [] and "marian-decoder --config" in card
    assert "not exported for ctranslate2" in caplog.text
    assert (folder / "marian/model.npz").read_bytes() == model.read_bytes()


def test_another_normalisation_leaves_ctranslate2(tmp_path):
    changes = {"transformer_preprocess": "n", "transformer_postprocess": "da", "transformer_postprocess_top": "n"}
    model, vocab = write_tiny(tmp_path, tiny_model(**changes))
    quantize(model, (vocab, vocab), None, tmp_path / "int8")
    export.main(["--model", str(model), "--quantized", str(tmp_path / "int8"), *common_flags(tmp_path / "export")])
    metadata = json.loads((tmp_path / "export/metadata.json").read_text())
    assert metadata["unavailable"].keys() == {"huggingface"}
    assert metadata["bytes"].keys() == {export.FLOAT32, export.INT8, export.MARIAN}


def test_a_quantized_model_is_there_exactly_where_it_can_be(tmp_path, flags, quantized):
    common = common_flags(tmp_path / "export")
    with pytest.raises(UserError, match=r"--quantized is missing.*pipeline\.quantize\.quantize"):
        export.main(["--model", str(trained_files()[0]), *common])
    model, _ = write_tiny(tmp_path, tiny_model(**SSRU))
    with pytest.raises(UserError, match="leave it out: CTranslate2 cannot compute a recurrent decoder"):
        export.main(["--model", str(model), "--quantized", str(quantized), *common])
    with pytest.raises(UserError, match=r"CTranslate2 int8 \(.*\) does not compute the same model"):
        export.main(["--model", str(tiny_files()[0]), "--quantized", str(quantized), *common])
    assert not (tmp_path / "export").exists()


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


@pytest.mark.parametrize(
    ("flag", "content", "message"),
    [
        ("--config", "- a list", "a mapping of experiment"),
        ("--config", "a: [", "is not YAML"),
        ("--metrics", '{"name": "student"}', "no metrics file"),
        ("--significance", '{"pairs": 1}', "no file of pipeline.evaluate.significance"),
        ("--shortlist", "one two", "line 1"),
    ],
)
def test_wrong_files_are_named(tmp_path, flags, flag, content, message):
    (tmp_path / "wrong").write_text(content)
    with pytest.raises(UserError, match=message):
        export.main([*flags, flag, str(tmp_path / "wrong")])
    assert not Path(tmp_path / "export").exists()
