"""Bad input, seen by the person who runs it: one sentence that names the thing, and a resume once it is mended."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from toy_language import write_toy_corpora

from pipeline.common.corpus import read_parallel, write_columns


def limbeck(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "utils.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Run:
    """A small run up to the merged devset and corpus, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, folder / "runs"
        write_toy_corpora(folder, train=300, held_out=20, mono=1)
        self.names = {use: f"file_{folder}/{name}.[LANG].zst" for use, name in (("train", "train"), ("devtest", "dev"))}

    def train(self, stage: str, *flags: str) -> subprocess.CompletedProcess[str]:
        config = self.folder / "config.yml"
        values = {
            "experiment": {
                "name": "bad",
                "src": "en",
                "trg": "de",
                "spm-vocab-size": 400,
                "cleaning": {"default": {"language": False}},
            },
            "datasets": {use: [name] for use, name in self.names.items()},
            "target-stage": stage,
        }
        config.write_text(yaml.safe_dump(values))
        return limbeck("train", config, "--runs", self.runs, "--yes", *flags)

    def rewrite(self, name: str, lines: list[tuple[str, str]]) -> None:
        with write_columns(self.folder / f"{name}.en.zst", self.folder / f"{name}.de.zst") as corpus:
            for pair in lines:
                corpus.write(*pair)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def assert_one_sentence(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    failures = [line for line in done.stdout.splitlines() if "  failed: " in line]
    assert len(failures) == 1
    assert said in failures[0]
    assert "Traceback" not in done.stdout
    assert "limbeck resume" in done.stdout


def test_a_devset_without_lines(run: Run) -> None:
    run.rewrite("dev", [])
    assert_one_sentence(run.train("corpus-merge-devset"), "dev")


def test_a_corpus_of_which_cleaning_leaves_nothing(run: Run) -> None:
    run.rewrite("train", [("12345", "12345"), ("", "leer")])
    done = run.train("corpus-merge-parallel")
    assert_one_sentence(done, "file_")
    assert "skipped because of it: corpus-merge-parallel-en-de" in done.stdout


def test_sides_of_unequal_length_and_a_resume_when_mended(run: Run) -> None:
    pairs = list(read_parallel(run.folder / "train.en.zst", run.folder / "train.de.zst"))
    run.rewrite("other", pairs[:-1])
    whole = (run.folder / "train.de.zst").read_bytes()
    (run.folder / "train.de.zst").write_bytes((run.folder / "other.de.zst").read_bytes())
    assert_one_sentence(run.train("corpus-merge-parallel"), "train.")
    (run.folder / "train.de.zst").write_bytes(whole)
    resumed = limbeck("resume", "--runs", run.runs)
    assert resumed.returncode == 0, resumed.stdout


def test_a_missing_file(run: Run) -> None:
    run.names["train"] = f"file_{run.folder}/none.[LANG].zst"
    assert_one_sentence(run.train("corpus-merge-parallel"), "none.en.zst")


def test_a_vocabulary_larger_than_the_corpus_allows(run: Run) -> None:
    run.rewrite("train", [(f"word{n} two three", f"wort{n} zwei drei") for n in "abcdef"])
    assert_one_sentence(run.train("build-vocab"), "400")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_a_url_that_is_not_there_and_one_that_is(run: Run, server: str) -> None:
    run.names["train"] = f"url_{server}/none.[LANG].zst"
    done = run.train("corpus-merge-parallel")
    assert done.returncode == 2
    assert f"url_{server}/none.[LANG].zst" in done.stderr
    done = run.train("corpus-merge-parallel", "--no-probe")
    assert_one_sentence(done, f"{server}/none.en.zst")
    assert "404" in done.stdout
    run.names["train"] = f"url_{server}/train.[LANG].zst"
    assert run.train("corpus-merge-parallel").returncode == 0
