"""limbeck translate: every kind of folder, with the engine that suits it."""

import io
import json
import shutil
import sys

import pytest
import torch
from browser_engine import needs_engine, tiny_export
from tiny_model import tiny_model, toy_pairs, vocab_bytes

from pipeline.common.errors import UserError
from pipeline.model import search
from pipeline.model.browser_engine import BrowserEngine, ModelFiles
from pipeline.model.decoding import decoder_yml
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.formats import npz
from pipeline.model.parity import padded
from pipeline.model.vocab import Vocab
from pipeline.vocab.build import train
from utils.cli import main
from utils.translation_engines import Settings, choose_engine, load_engine, longest_translation

RECURRENT = {"transformer_decoder_autoreg": "rnn", "dec_cell": "ssru"}
SIZES = (400, 296)
TWO_VOCABS = {"dim_vocabs": SIZES, "tied_embeddings_all": False, "tied_embeddings": True}
SOURCES = [source for source, _ in toy_pairs(3, seed=5)]
TEXT = "".join(f"{source}\n" for source in SOURCES)


@pytest.fixture(scope="module")
def vocabs(tmp_path_factory):
    """Two different vocabularies, of which the target's comes first by its name."""
    folder = tmp_path_factory.mktemp("vocabularies")
    (folder / "vocab.en.spm").write_bytes(vocab_bytes())
    (folder / "vocab.de.spm").write_bytes(train((target for _, target in toy_pairs(1500)), SIZES[1], "nmt_nfkc", ()))
    return folder / "vocab.en.spm", folder / "vocab.de.spm"


@pytest.fixture(scope="module")
def whole_export(tmp_path_factory, vocabs):
    """An export for every engine."""
    folder = tmp_path_factory.mktemp("whole") / "export"
    model = tiny_model(**TWO_VOCABS)
    for name, quantization in (("float32", None), ("int8", "int8")):
        ctranslate2_format.save(model, folder / "ctranslate2" / name, vocabs, quantization)
    write_marian(model, folder / "marian", vocabs)
    for name in ("ctranslate2/float32", "ctranslate2/int8"):
        for vocab in vocabs:
            shutil.copyfile(vocab, folder / name / vocab.name)
    (folder / "metadata.json").write_text(json.dumps({"src": "en", "trg": "de"}))
    tiny_export(folder / "browser", vocabs, **TWO_VOCABS)
    return folder


def write_marian(model, folder, vocabs):
    folder.mkdir(parents=True)
    npz.save(model, folder / "model.npz")
    for vocab in vocabs:
        shutil.copyfile(vocab, folder / vocab.name)
    (folder / "decoder.yml").write_text(decoder_yml("model.npz", [vocab.name for vocab in vocabs]))


@pytest.fixture
def export(whole_export, tmp_path):
    """A copy to take engines out of."""
    return shutil.copytree(whole_export, tmp_path / "export")


@pytest.fixture
def translate(monkeypatch, capsys):
    """Runs the command on lines of standard input; returns its lines and what it says on standard error."""

    def run(model, *flags, text=TEXT):
        content = text if isinstance(text, bytes) else text.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code = main(["translate", str(model), "--threads", "1", *map(str, flags)])
        output = capsys.readouterr()
        assert (code == 0) == ("error:" not in output.err)
        return output.out.removesuffix("\n").split("\n"), output.err

    return run


def expected(model, vocabs, line):
    """What torch makes of a line by itself."""
    source, target = (Vocab.load(vocab) for vocab in vocabs)
    ids, mask = padded(source.encode([line], add_eos=False))
    with torch.no_grad():
        return target.decode([search.beam_search([model], ids, mask, 1)[0][0].ids])[0]


def test_two_vocabularies_are_not_confused(whole_export, vocabs):
    wanted = [expected(tiny_model(**TWO_VOCABS), vocabs, source) for source in SOURCES]
    assert len(set(wanted)) == len(SOURCES)
    for engine in ("ctranslate2", "torch"):
        settings = Settings(float32=True)
        loaded = load_engine(*choose_engine(whole_export, engine, settings), settings)
        # By themselves: a random model's translations are cut, in a batch at the length of the longest.
        assert [loaded.translate([source])[0] for source in SOURCES] == wanted, engine
        assert loaded.translate([]) == []


def test_the_best_engine_present_is_used_and_said(export, translate):
    lines, said = translate(export)
    assert said == f"engine: CTranslate2 int8, {export}/ctranslate2/int8\n"
    assert len(lines) == len(SOURCES)
    assert translate(export, "--float32")[1] == f"engine: CTranslate2 float32, {export}/ctranslate2/float32\n"
    assert translate(export, "--engine", "torch")[1] == f"engine: torch float32, {export}/marian\n"
    assert translate(export / "ctranslate2/int8")[1] == f"engine: CTranslate2 int8, {export}/ctranslate2/int8\n"
    assert translate(export / "marian")[1] == f"engine: torch float32, {export}/marian\n"
    shutil.rmtree(export / "ctranslate2")
    assert translate(export)[1] == f"engine: torch float32, {export}/marian\n"
    assert (
        f"{export} has no model for ctranslate2: it has one for torch, browser"
        in translate(export, "--engine", "ctranslate2")[1]
    )


def test_a_recurrent_student_is_translated_by_torch(tmp_path, vocabs, translate):
    model = tiny_model(**TWO_VOCABS, **RECURRENT)
    write_marian(model, tmp_path / "export" / "marian", vocabs)
    lines, said = translate(tmp_path / "export", text=f"{SOURCES[0]}\n")
    assert said.startswith("engine: torch float32")
    assert lines == [expected(model, vocabs, SOURCES[0])]


def test_an_export_for_the_browser_is_translated_by_its_engine(export, translate):
    needs_engine()
    with BrowserEngine(ModelFiles.of_export(export / "browser")) as engine:
        wanted = engine.translate([SOURCES[0]])
    lines, said = translate(export / "browser", text=f"{SOURCES[0]}\n\n")
    assert (lines, "engine: the browser's engine (bergamot wasm" in said) == ([*wanted, ""], True)
    assert "leave out --float32" in translate(export / "browser", "--float32")[1]


def test_html_is_for_the_browser_s_engine(export, translate):
    needs_engine()
    lines, said = translate(export, "--html", text=f"<p><b>{SOURCES[0]}</b></p>\n")
    assert "the browser's engine" in said
    assert lines[0].startswith("<p><b>") and lines[0].endswith("</b></p>")
    # Beside the folder that is named it is found, too.
    assert f"{export}/browser" in translate(export / "marian", "--html", text="<i>a</i>\n")[1]
    said = translate(export, "--html", text="<i>a</i>\n<b>b</i>\n")[1]
    assert "unexpected closing tag </i>" in said
    assert said.endswith("a line of --html must be sound HTML: '<b>b</i>'\n")


def test_html_without_the_browser_s_engine_is_refused(export, translate):
    assert (
        "ctranslate2 would translate tags as words: --html needs --engine browser"
        in translate(export, "--html", "--engine", "ctranslate2")[1]
    )
    shutil.rmtree(export / "browser")
    said = translate(export, "--html")[1]
    assert "only the browser's engine keeps tags" in said
    assert "experiment.browser-export" in said


@pytest.mark.parametrize("engine", ["ctranslate2", "torch", "browser"])
def test_every_line_has_one_line(export, translate, engine):
    if engine == "browser":
        needs_engine()
    text = f"\n  \n{SOURCES[0]}\r\n\u2028\u0085a\rb\n日本語 😀 <b>\nlast, without its end"
    lines, _ = translate(export, "--engine", engine, text=text)
    assert len(lines) == 6
    assert lines[:2] == ["", ""]
    assert all(lines[2:])


def test_lines_come_from_files_and_a_long_one_is_cut_with_a_warning(export, translate, tmp_path):
    (tmp_path / "one.en").write_text(f"{SOURCES[0]}\n")
    (tmp_path / "two.en").write_text("zu " * 1100 + "\n\n")
    lines, said = translate(export, tmp_path / "one.en", "--beam-size", "1", tmp_path / "two.en")
    assert [bool(line) for line in lines] == [True, True, False]
    assert "warning: only the first 1000 of" in said


def test_a_shortlist_limits_what_is_chosen(export, translate, vocabs):
    assert "has no vmap.txt" in translate(export, "--shortlist")[1]
    pieces = Vocab.load(vocabs[1]).all_pieces[10:14]
    (export / "ctranslate2/int8/vmap.txt").write_text("\t" + " ".join(pieces) + "\n")
    lines, said = translate(export, "--shortlist", text=f"{SOURCES[0]}\n")
    assert "CTranslate2 int8, with its shortlist" in said
    left = lines[0]
    for piece in sorted(pieces, key=len, reverse=True):
        left = left.replace(piece.removeprefix("▁"), "")
    assert lines[0] and not left.strip()
    assert "--shortlist is for CTranslate2" in translate(export, "--shortlist", "--engine", "torch")[1]


def test_wrong_input_is_explained(export, translate, tmp_path, vocabs):
    assert "does not exist" in translate(tmp_path / "nothing")[1]
    (tmp_path / "empty").mkdir()
    assert "holds no model: an export folder is needed" in translate(tmp_path / "empty")[1]
    assert "--beam-size must be at least 1" in translate(export, "--beam-size", "0")[1]
    assert "standard input is not UTF-8" in translate(export, text=b"\xff\xfe\n")[1]
    assert "has a model in int8" in translate(export / "ctranslate2/int8", "--float32")[1]
    (export / "marian/decoder.yml").unlink()
    assert "no decoder.yml that says which" in translate(export / "marian")[1]
    shutil.copyfile(vocabs[0], export / "ctranslate2/int8/vocab.de.spm")
    assert "holds no vocabulary of its model" in translate(export)[1]


def test_the_longest_translation_is_that_of_the_search():
    assert [longest_translation(length) for length in (1, 2, 500, 5000)] == [
        search.longest_translation(length) for length in (1, 2, 500, 5000)
    ]


def test_a_sibling_is_no_answer_to_a_wrong_name(export):
    (export / "other").mkdir()
    with pytest.raises(UserError, match="holds no model"):
        choose_engine(export / "other", None, Settings(html=True))
