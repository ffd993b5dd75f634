from pathlib import Path

import numpy as np
import pytest
from made_bitext import make, write
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from pipeline.align.bitext import Bitext
from pipeline.align.shortlist import LinkCounts, main, prune
from pipeline.align.symmetrize import Links
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shortlist")
    src, trg, _ = make(1500)
    trg = [line or "particle" for line in trg]
    for name, lines in (("en", src), ("de", trg)):
        write(folder / f"corpus.{name}.zst", lines)
        symbols = {word for line in lines for word in line.split()}
        with (folder / f"vocab.{name}.spm").open("wb") as file:
            SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=file,
                model_type="word",
                vocab_size=len(symbols) + 2,
                eos_id=0,
                unk_id=1,
                bos_id=-1,
                pad_id=-1,
                minloglevel=2,
            )
    return folder


def run(corpus: Path, output: Path, *options: str) -> list[tuple[str, str, float]]:
    main(
        [
            *("--corpus-src", str(corpus / "corpus.en.zst"), "--corpus-trg", str(corpus / "corpus.de.zst")),
            *("--src-vocab", str(corpus / "vocab.en.spm"), "--trg-vocab", str(corpus / "vocab.de.spm")),
            *("--output", str(output), *options),
        ]
    )
    return [(trg, src, float(p)) for trg, src, p in (line.split(" ") for line in read_lines(output))]


def test_shortlist_holds_the_translations(corpus: Path, tmp_path: Path) -> None:
    entries = run(corpus, tmp_path / "lex.zst")
    best: dict[str, tuple[str, float]] = {}
    for trg, src, probability in entries:
        assert 0 < probability <= 1
        best.setdefault(src, (trg, probability))
    assert best["▁s1"][0] == "▁t1" and best["▁s1"][1] > 0.9
    right = sum(f"▁t{src[2:]}" == trg for src, (trg, _) in best.items() if int(src[2:]) % 11)
    assert right > 0.9 * len([src for src in best if int(src[2:]) % 11])
    two = {trg: p for trg, src, p in entries if src == "▁s13"}
    assert two["▁t13"] == pytest.approx(0.5, abs=0.1) == two["▁u13"]


def test_lines_are_sorted_and_pruned(corpus: Path, tmp_path: Path) -> None:
    everything = run(corpus, tmp_path / "all.zst", "--best", "1000")
    ids = {
        side: SentencePieceProcessor(model_file=str(corpus / f"vocab.{side}.spm")).piece_to_id for side in ("en", "de")
    }
    assert everything == sorted(everything, key=lambda entry: (ids["en"](entry[1]), -entry[2], ids["de"](entry[0])))
    pruned = run(corpus, tmp_path / "lex.zst", "--best", "2", "--first", "10")
    rank: dict[str, int] = {}
    expected = []
    for entry in everything:
        rank[entry[1]] = rank.get(entry[1], 0) + 1
        if rank[entry[1]] <= 2 or ids["de"](entry[0]) < 10:
            expected.append(entry)
    assert pruned == expected
    assert len(pruned) < len(everything)


def test_probabilities_have_eight_decimals_and_the_file_is_deterministic(corpus: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(corpus, tmp_path / f"{name}.zst", "--chunk-cells", "20000")
    assert (tmp_path / "a.zst").read_bytes() == (tmp_path / "b.zst").read_bytes()
    assert all(len(line.split(".")[-1]) == 8 for line in read_lines(tmp_path / "a.zst"))


def test_counts_of_chunks_add_up_and_pieces_without_links_count() -> None:
    bitext = Bitext.from_pairs([([1, 2], [3]), ([1], [0])])
    links = Links(*(np.array(column) for column in ([0, 1], [0, 0], [0, 0])))
    counts = LinkCounts(3, 4)
    for _ in range(2):
        counts.add(bitext, links)
    assert [column.tolist() for column in counts.probabilities()] == [[1, 1], [0, 3], [0.5, 0.5]]
    assert counts.totals.tolist() == [0, 4, 2]


def test_prune() -> None:
    sources, targets = np.array([0, 0, 0, 2, 2]), np.array([9, 8, 1, 7, 6])
    assert prune(sources, targets, best=1, first=2).tolist() == [0, 2, 3]
    empty = np.zeros(0, np.int64)
    assert prune(empty, empty, best=1, first=2).tolist() == []


def test_bad_input(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "lex.zst"
    with pytest.raises(UserError, match=r"none\.spm does not exist"):
        run(corpus, output, "--src-vocab", str(tmp_path / "none.spm"))
    with pytest.raises(UserError, match="is not a SentencePiece model"):
        run(corpus, output, "--src-vocab", str(corpus / "corpus.en.zst"))
    empty = write(tmp_path / "empty.zst", [])
    with pytest.raises(UserError, match="has 0 lines"):
        run(corpus, output, "--corpus-src", str(empty))
    with pytest.raises(UserError, match="hold no text"):
        run(corpus, output, "--corpus-src", str(empty), "--corpus-trg", str(empty))
    with pytest.raises(UserError, match="must be 1 or more"):
        run(corpus, output, "--best", "0")
    assert not output.exists()


def test_several_processes_find_the_same(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for processors in ("1", "2"):
        monkeypatch.setenv("LIMBECK_CPUS", processors)
        found.append(run(corpus, tmp_path / f"{processors}.zst", "--chunk-cells", "40000"))
    assert found[0] == found[1]
    best: dict[str, str] = {}
    for trg, src, _ in found[0]:
        best.setdefault(src, trg)
    right = sum(f"▁t{src[2:]}" == trg for src, trg in best.items() if int(src[2:]) % 11)
    assert right > 0.9 * len([src for src in best if int(src[2:]) % 11])
