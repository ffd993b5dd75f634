from collections import Counter
from pathlib import Path

import pytest

import pipeline.train.shuffle as shuffle
from pipeline.common.errors import UserError
from pipeline.common.files import write_lines
from pipeline.train.shuffle import TextCorpus


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "PIECE_ROWS", 10)
    monkeypatch.setattr(shuffle, "GROUP_PIECES", 3)


def make_corpus(folder: Path, rows: int, seed: int = 1) -> TextCorpus:
    paths = (folder / "corpus.en.zst", folder / "corpus.de.zst")
    for path, mark in zip(paths, "ab", strict=True):
        with write_lines(path) as writer:
            for number in range(rows):
                writer.write(f"{mark}{number} \u2028 ü")
    return TextCorpus("original", paths, folder / "checkpoints", (seed, 0))


def test_an_epoch_holds_every_row_once_with_both_sides_together(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, 95)
    for epoch in range(3):
        assert corpus.epochs == epoch
        rows = corpus.take(95)
        assert Counter(rows) == Counter({(f"a{n} \u2028 ü", f"b{n} \u2028 ü"): 1 for n in range(95)})
    assert corpus.position.epoch == 3


def test_the_order_changes_with_epoch_and_seed_only(tmp_path: Path) -> None:
    corpus, again, other = make_corpus(tmp_path, 95), make_corpus(tmp_path, 95), make_corpus(tmp_path, 95, seed=2)
    first, second = corpus.take(95), corpus.take(95)
    assert first == again.take(95)
    assert first != second
    assert first != other.take(95)
    # Shuffled across the corpus, not only inside a group: the first third comes from everywhere.
    assert len({int(row[0].split()[0][1:]) // 10 for row in first[:30]}) == 3
    assert {int(row[0].split()[0][1:]) // 10 for row in first[:30]} != {0, 1, 2}


def test_a_small_corpus_is_shuffled_anew_too(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, 10)
    assert corpus.take(10) != corpus.take(10)


def test_reading_goes_on_behind_any_position(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, 95)
    positions, rows, epochs = [], [], []
    for _ in range(250):
        positions.append(corpus.position)
        epochs.append(corpus.epochs)
        rows += corpus.take(1)
    assert epochs == sorted(epochs)
    for start in (0, 1, 29, 30, 94, 95, 133, 190, 249):
        corpus.seek(positions[start])
        assert corpus.epochs == pytest.approx(start / 95)
        assert corpus.take(250 - start) == rows[start:]


def test_an_empty_or_uneven_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="corpus original is empty"):
        make_corpus(tmp_path, 0)
    with write_lines(tmp_path / "one.zst") as writer:
        writer.write("alone")
    with pytest.raises(UserError, match="equal length"):
        TextCorpus("x", (tmp_path / "one.zst", tmp_path / "corpus.en.zst"), tmp_path, (1,))
    with pytest.raises(UserError, match="does not exist"):
        TextCorpus("x", (tmp_path / "none.zst", tmp_path / "corpus.en.zst"), tmp_path, (1,))


def test_closing_removes_the_copy(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, 5)
    assert list((tmp_path / "checkpoints").iterdir())
    corpus.close()
    assert not list((tmp_path / "checkpoints").iterdir())
