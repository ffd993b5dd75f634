"""One Node process with the browser's engine: what it translates, what it refuses, and that it ends."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
from browser_engine import OPTIONS, TEXTS, needs_engine, tiny_export
from tiny_model import vocab_bytes

from pipeline.common.errors import TransientError, UserError
from pipeline.model.browser_engine import BrowserEngine, ModelFiles


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    (folder / "vocab.spm").write_bytes(vocab_bytes())
    return tiny_export(folder / "browser", [folder / "vocab.spm"])


@pytest.fixture
def copied(export, tmp_path):
    return shutil.copytree(export, tmp_path / "browser")


@pytest.fixture
def engine(export):
    needs_engine()
    with BrowserEngine(ModelFiles.of_export(export)) as engine:
        yield engine


def has_ended(engine):
    """Whether the process is gone, and not a zombie."""
    return not psutil.pid_exists(engine._process.pid)


def test_any_text_has_one_translation(engine):
    strange = ["日本語 😀 e\u0301 \u2028 \u0085 \ufeff", "a\0b", "a\tb", "<b>not HTML & no tag"]
    long = " ".join(TEXTS * 8)
    found = engine.translate([TEXTS[0], "", "   ", *strange, long])
    assert found[1:3] == ["", ""]
    assert [bool(text) for text in found] == [True, False, False, True, True, True, True, True]
    assert len(found[-1].split()) > len(found[0].split())
    assert engine.translate([]) == []


def test_the_same_text_has_the_same_translation(engine):
    assert len({tuple(engine.translate(TEXTS)) for _ in range(2)}) == 1
    assert engine.translate([TEXTS[2]]) == engine.translate([TEXTS[2]])


def test_memory_is_the_process_s_own(engine):
    before = engine.peak_memory()
    engine.translate(TEXTS)
    # Far below what this process has, with torch in it.
    assert 20e6 < engine.before_loading < before <= engine.peak_memory() < psutil.Process().memory_info().rss


def test_html_that_is_not_sound_ends_the_engine(engine):
    with pytest.raises(UserError, match=r"engine says: Encountered unexpected closing tag </i>, stack is <b>$"):
        engine.translate(["<b>a</i>"], html=True)
    assert has_ended(engine)
    with pytest.raises(UserError, match="has ended: start another one"):
        engine.translate(["a"])


def test_a_killed_process_is_worth_a_retry(engine):
    engine._process.kill()
    with pytest.raises(TransientError, match="was killed, perhaps because memory ran out"):
        engine.translate(TEXTS)
    assert has_ended(engine)


def test_no_answer_in_time(engine):
    os.kill(engine._process.pid, signal.SIGSTOP)
    engine.seconds = 0.2
    with pytest.raises(TransientError, match=r"no answer within 0\.2 s"):
        engine.translate(TEXTS)
    assert has_ended(engine)


def test_an_interrupted_request_ends_the_process(engine):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    os.kill(engine._process.pid, signal.SIGSTOP)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.translate(TEXTS)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert has_ended(engine)


def test_the_process_ends_with_the_one_that_started_it(export):
    needs_engine()
    code = (
        "import os, sys\n"
        "from pipeline.model.browser_engine import BrowserEngine, ModelFiles\n"
        "print(BrowserEngine(ModelFiles.of_export(sys.argv[1]))._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(export)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(30)


def test_a_model_that_the_engine_cannot_load_is_named(export, tmp_path):
    needs_engine()
    model = tmp_path / "model.bin"
    model.write_bytes(b"no model" * 1000)
    with pytest.raises(UserError, match=r"model\.bin: the browser's engine says: .*[Vv]ersion"):
        BrowserEngine(ModelFiles(model, [export / "vocab.ende.spm"], OPTIONS))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing: copy the whole folder"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"has [\d,]+ bytes, not the [\d,]+ that were exported"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), "is not what was exported"),
    ],
)
@pytest.mark.parametrize("name", ["model.ende.intgemm.alphas.bin", "vocab.ende.spm"])
def test_a_missing_or_damaged_file_is_named(copied, name, damage, message):
    damage(copied / name)
    with pytest.raises(UserError, match=f"{name} {message}"):
        ModelFiles.of_export(copied)


def test_a_folder_that_is_no_export_for_the_browser(copied, tmp_path):
    with pytest.raises(UserError, match="is no export for the browser"):
        ModelFiles.of_export(tmp_path)
    metadata = json.loads((copied / "metadata.json").read_text())
    del metadata["files"]["vocab"]
    (copied / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=r"metadata\.json has no 'srcvocab': export the model again"):
        ModelFiles.of_export(copied)


def test_without_node_it_is_said(export, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no node on the PATH: install Node"):
        BrowserEngine(ModelFiles.of_export(export))
