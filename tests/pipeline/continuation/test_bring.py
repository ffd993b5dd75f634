"""What continuation fetches from a web server: checked, and published under the pipeline's names."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from opus_model import write_opus_model
from tiny_model import VOCAB_SIZE, tiny_model, toy_pairs, vocab_bytes
from web_server import Answer, WebServer

from pipeline.common.errors import TransientError, UserError
from pipeline.common.files import read_lines
from pipeline.continuation import corpus, file, model, mono, vocab
from pipeline.model.formats import npz
from pipeline.model.vocab import Vocab
from pipeline.vocab.build import train

BEST = "final.model.npz.best-chrf.npz"


def zst(*lines: str) -> bytes:
    return zstandard.compress("".join(f"{line}\n" for line in lines).encode())


class CorpusStep:
    def __init__(self, web: WebServer, folder: Path) -> None:
        self.web, self.folder = web, folder

    def __call__(self, languages: tuple[str, str] = ("en", "de"), **files: bytes) -> dict[str, Any]:
        uris = {name.replace("_", "-"): self.web.put(f"/{name}.zst", content) for name, content in files.items()}
        corpus.main(
            [
                *("--src", languages[0], "--trg", languages[1], "--uris", json.dumps(uris)),
                *("--output-src", str(self.folder / "corpus.src.zst")),
                *("--output-trg", str(self.folder / "corpus.trg.zst")),
                *("--output-alignments", str(self.folder / "corpus.aln.zst")),
                *("--stats", str(self.folder / "corpus.stats.json")),
            ]
        )
        stats: dict[str, Any] = json.loads((self.folder / "corpus.stats.json").read_text())
        return stats

    def lines(self, name: str) -> list[str]:
        return list(read_lines(self.folder / name))


@pytest.fixture
def bring(web: WebServer, tmp_path: Path) -> CorpusStep:
    (tmp_path / "out").mkdir()
    return CorpusStep(web, tmp_path / "out")


def test_a_corpus_is_written_as_it_is_and_counted(bring: CorpusStep) -> None:
    stats = bring(src=zst("One.", "Two.\u2028still"), trg=zst("Eins.", "Zwei."))
    assert bring.lines("corpus.src.zst") == ["One.", "Two.\u2028still"]
    assert bring.lines("corpus.trg.zst") == ["Eins.", "Zwei."]
    assert (stats["dataset"], stats["read"], stats["kept"]) == ("corpus", 2, 2)
    assert sorted(path.name for path in bring.folder.iterdir()) == [
        "corpus.src.zst",
        "corpus.stats.json",
        "corpus.trg.zst",
    ]


def test_alignments_come_over_to_our_words(bring: CorpusStep) -> None:
    bring(
        src=zst("The cat.", "No"),
        trg=zst("Die Katze.", "Nein"),
        tok_src=zst("The ▁ cat .", "No"),
        tok_trg=zst("Die ▁ Katze .", "Nein"),
        alignments=zst("0-0 2-2 3-3", ""),
    )
    assert bring.lines("corpus.aln.zst") == ["0-0 1-1 2-2", ""]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"src": zst("a", "b"), "trg": zst("x")}, r"trg\.zst ends after 1 lines"),
        ({"src": zst("a"), "trg": zst("x")[:-3]}, r"http.*trg\.zst is (not a sound|cut short)"),
        ({"src": b"<html>", "trg": zst("x")}, r"http.*src\.zst is not a sound zstd file"),
        ({"src": zst(), "trg": zst()}, "is empty"),
        ({"src": zst("a"), "trg": zst("x"), "alignments": zst("0-0")}, "no tok-src and no tok-trg"),
        (
            {"src": zst("a"), "trg": zst("x"), "tok_src": zst("a"), "tok_trg": zst("x"), "alignments": zst("0-1")},
            r"alignments\.zst, line 1: the link 0-1 leads out",
        ),
        (
            {"src": zst("a"), "trg": zst("x"), "tok_src": zst("b"), "tok_trg": zst("x"), "alignments": zst("0-0")},
            "line 1: the token 'b' is not",
        ),
    ],
)
def test_what_does_not_fit_ends_with_its_place(bring: CorpusStep, files: dict[str, bytes], said: str) -> None:
    with pytest.raises(UserError, match=said):
        bring(**files)
    assert list(bring.folder.iterdir()) == []


ENGLISH = [f"This is the sentence number {n} that somebody wrote about the weather." for n in range(60)]
GERMAN = [f"Das ist der Satz mit der Nummer {n}, den jemand über das Wetter geschrieben hat." for n in range(60)]


def test_sides_that_are_swapped_are_warned_of(bring: CorpusStep, caplog: pytest.LogCaptureFixture) -> None:
    bring(src=zst(*ENGLISH), trg=zst(*GERMAN))
    assert "look like" not in caplog.text
    bring(src=zst(*GERMAN), trg=zst(*ENGLISH))
    assert "look like 'en', but" in caplog.text
    assert "are the two sides swapped?" in caplog.text


def test_text_of_one_language(web: WebServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = tmp_path / "mono.en.zst"
    flags = ["--lang", "en", "--output", str(target), "--stats", str(tmp_path / "mono.stats.json")]
    mono.main(["--uri", web.put("/mono", "\n".join(GERMAN).encode()), *flags])
    assert list(read_lines(target)) == GERMAN
    assert "is it the right file?" in caplog.text
    file.main(["--uri", web.put("/lex", b"a b 0.5\n"), "--output", str(tmp_path / "lex.s2t.pruned.zst")])
    assert list(read_lines(tmp_path / "lex.s2t.pruned.zst")) == ["a b 0.5"]
    with pytest.raises(UserError, match="is empty"):
        file.main(["--uri", web.put("/none", b""), "--output", str(tmp_path / "none.zst")])


def test_vocabularies(web: WebServer, tmp_path: Path) -> None:
    flags = ["--output-src", str(tmp_path / "vocab.en.spm"), "--output-trg", str(tmp_path / "vocab.de.spm")]
    url = web.put("/vocab.spm", vocab_bytes())
    vocab.main(["--src-uri", url, "--trg-uri", url, *flags])
    assert (tmp_path / "vocab.de.spm").read_bytes() == vocab_bytes()
    with pytest.raises(UserError, match=r"http.*/page is not a SentencePiece model"):
        vocab.main(["--src-uri", web.put("/page", b"<html>"), "--trg-uri", url, *flags])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vocab.de.spm", "vocab.en.spm"]


class ModelStep:
    def __init__(self, web: WebServer, folder: Path) -> None:
        self.web, self.folder, self.url = web, folder, web.url + "/model"

    def put(self, **files: bytes) -> None:
        for name, content in files.items():
            self.web.put(f"/model/{name}", content)

    def __call__(self, uri: str, mode: str, *flags: str, kind: str = "default") -> list[str]:
        output = self.folder / "out"
        model.main(
            [
                *("--uri", uri, "--type", kind, "--mode", mode, "--src", "en", "--trg", "de", "--model-file", BEST),
                *("--output-dir", str(output), *flags),
            ]
        )
        return sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())


@pytest.fixture
def fetched(web: WebServer, tmp_path: Path) -> ModelStep:
    return ModelStep(web, tmp_path)


def model_bytes(folder: Path, **changes: Any) -> bytes:
    npz.save(tiny_model(**changes), folder / "made.npz")
    return (folder / "made.npz").read_bytes()


VOCABS = {"vocab.en.spm": vocab_bytes(), "vocab.de.spm": vocab_bytes()}
PUBLISHED = [BEST, f"{BEST}.decoder.yml", "vocab.de.spm", "vocab.en.spm"]


@pytest.mark.parametrize("mode", ["use", "init"])
def test_a_model_is_published_as_its_training_would(fetched: ModelStep, tmp_path: Path, mode: str) -> None:
    content = model_bytes(tmp_path)
    fetched.put(**{BEST: content}, **VOCABS)
    assert fetched(fetched.url, mode) == PUBLISHED
    assert (tmp_path / "out" / BEST).read_bytes() == content
    assert (tmp_path / "out" / "vocab.en.spm").read_bytes() == vocab_bytes()


def test_a_joint_vocabulary_and_the_address_of_the_file_itself(fetched: ModelStep, tmp_path: Path) -> None:
    fetched.put(**{"teacher.npz": model_bytes(tmp_path), "vocab.spm": vocab_bytes()})
    assert fetched(f"{fetched.url}/teacher.npz", "use") == PUBLISHED


def test_a_checkpoint_is_published_whole(fetched: ModelStep, tmp_path: Path) -> None:
    content = model_bytes(tmp_path)
    fetched.put(
        **{"model.npz": content, "optimizer.pt": b"state", "progress.yml": b"state: {}", BEST: content}, **VOCABS
    )
    found = ["best.npz", "model.npz", "optimizer.pt", "progress.yml"]
    assert fetched(fetched.url, "continue") == [
        *(f"checkpoint/{name}" for name in found),
        "vocab.de.spm",
        "vocab.en.spm",
    ]


def test_without_the_optimizer_init_is_offered(fetched: ModelStep, tmp_path: Path) -> None:
    fetched.put(**{"model.npz": model_bytes(tmp_path), BEST: b"", "progress.yml": b""}, **VOCABS)
    with pytest.raises(UserError, match=r"/model/optimizer\.pt.*404.*mode: init"):
        fetched(fetched.url, "continue")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_or_damaged_model(fetched: ModelStep, tmp_path: Path) -> None:
    fetched.put(**VOCABS)
    with pytest.raises(UserError, match=r"404.*experiment\.best-model"):
        fetched(fetched.url, "use")
    fetched.put(**{BEST: model_bytes(tmp_path)[:-500]})
    with pytest.raises(UserError, match=r"http.*/model"):
        fetched(fetched.url, "use")
    fetched.web.put(f"/model/{BEST}", Answer(b"", 503))
    with pytest.raises(TransientError, match="attempts"):
        fetched(fetched.url, "use")


def test_a_vocabulary_that_does_not_fit_is_an_error_with_both_sizes(fetched: ModelStep, tmp_path: Path) -> None:
    small = train((text for pair in toy_pairs(800) for text in pair), 320, "nmt_nfkc", ())
    (tmp_path / "small.spm").write_bytes(small)
    given = ["--vocab", str(tmp_path / "small.spm"), str(tmp_path / "small.spm")]
    fetched.put(**{BEST: model_bytes(tmp_path)})
    with pytest.raises(UserError, match=r"has no vocab\.en\.spm and vocab\.de\.spm: give the vocabulary"):
        fetched(fetched.url, "use")
    with pytest.raises(UserError, match=f"source vocabulary of {VOCAB_SIZE} pieces, but the one given has 320"):
        fetched(fetched.url, "use", *given)
    fetched.put(**VOCABS)
    with pytest.raises(
        UserError, match=rf"\({VOCAB_SIZE} pieces\).*continuation\.vocab \(320\).*first difference is piece"
    ):
        fetched(fetched.url, "use", *given)


def test_the_runs_vocabulary_serves_where_a_model_has_none(fetched: ModelStep, tmp_path: Path) -> None:
    (tmp_path / "vocab.spm").write_bytes(vocab_bytes())
    fetched.put(**{BEST: model_bytes(tmp_path)})
    given = ["--vocab", str(tmp_path / "vocab.spm"), str(tmp_path / "vocab.spm")]
    assert fetched(fetched.url, "use", *given) == PUBLISHED


@pytest.mark.parametrize("packed", [True, False])
def test_opus_models_from_a_zip_and_from_a_directory(fetched: ModelStep, tmp_path: Path, packed: bool) -> None:
    opus = write_opus_model(tmp_path / "opus")
    if packed:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for path in opus.path.iterdir():
                archive.write(path, path.name)
        uri = fetched.web.put("/opus-2020-02-26.zip", content.getvalue())
    else:
        fetched.put(**{path.name: path.read_bytes() for path in opus.path.iterdir()})
        uri = fetched.url
    assert fetched(uri, "use", kind="opusmt") == PUBLISHED
    made = npz.load(tmp_path / "out" / BEST)
    rows = len(Vocab.load(tmp_path / "out" / "vocab.en.spm"))
    assert made.config.dim_vocabs[0] == rows
    tagged = Vocab.load(tmp_path / "out" / "vocab.en.spm").encode([">>deu<< ba ko"], add_eos=False)[0]
    assert tagged[0] == opus.marians_ids(0, ">>deu<< ba ko")[0]
    assert all(torch.isfinite(parameter).all() for parameter in made.parameters())
    assert np.isfinite(made.state_dict()["encoder_l1_ffn_W1"].numpy()).all()


def test_an_opus_model_has_nothing_to_continue_with(fetched: ModelStep) -> None:
    with pytest.raises(UserError, match="no state of an optimizer"):
        fetched("model.zip", "continue", kind="opusmt")
