"""A language pair made by rule: every source word has one target word, in the same order."""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import sentencepiece

from pipeline.common.corpus import write_columns

_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]


def _lexicon(count: int = 60) -> dict[str, str]:
    source, target = random.Random(1), random.Random(2)
    words: dict[str, str] = {}
    while len(words) < count:
        word = "".join(source.choice(_SYLLABLES) for _ in range(source.randint(1, 3)))
        words[word] = "".join(target.choice(_SYLLABLES) for _ in range(target.randint(1, 3))).upper()
    return words


LEXICON = _lexicon()


def make_pairs(count: int, seed: int, longest: int = 9) -> list[tuple[str, str, str]]:
    """Rows of source, target and alignment."""
    rng, words, rows = random.Random(seed), list(LEXICON), []
    for _ in range(count):
        chosen = rng.choices(words, k=rng.randint(1, longest))
        points = " ".join(f"{i}-{i}" for i in range(len(chosen)))
        rows.append((" ".join(chosen), " ".join(LEXICON[word] for word in chosen), points))
    return rows


def write_rows(rows: list[tuple[str, ...]], *paths: Path) -> tuple[Path, ...]:
    with write_columns(*paths) as writer:
        for row in rows:
            writer.write(*row[: len(paths)])
    return paths


@dataclass(frozen=True)
class Files:
    corpus: tuple[Path, ...]
    devset: tuple[Path, ...]
    vocabs: tuple[Path, Path]


def train_vocab(texts: list[str], path: Path, size: int = 120) -> Path:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=size,
        bos_id=-1,
        eos_id=0,
        unk_id=1,
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    path.write_bytes(model.getvalue())
    return path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("mapping")
    rows = make_pairs(2000, 1)
    corpus = write_rows(rows, folder / "corpus.en.zst", folder / "corpus.de.zst", folder / "corpus.aln.zst")
    devset = write_rows(make_pairs(30, 2), folder / "devset.en.zst", folder / "devset.de.zst")
    vocabs = (
        train_vocab([row[0] for row in rows], folder / "vocab.en.spm"),
        train_vocab([row[1] for row in rows], folder / "vocab.de.spm"),
    )
    return Files(corpus, devset, vocabs)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_CPUS", "1")


Row = tuple[str, ...]
MakePairs = Callable[[int, int], list[Row]]
