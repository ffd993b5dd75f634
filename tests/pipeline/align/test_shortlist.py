from pathlib import Path

import numpy as np
import pytest
from made_bitext import make, write
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, sentencepiece_model_pb2

from pipeline.align.bitext import Bitext
from pipeline.align.shortlist import LinkCounts, main, prune
from pipeline.align.symmetrize import Links
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines
from pipeline.model.formats import lexicon
from pipeline.model.vocab import Vocab


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


def test_long_pairs_are_left_out(corpus: Path, tmp_path: Path) -> None:
    short = (
        write(tmp_path / "short.en.zst", ["s1 s2", "s3 s4 s5", ""]),
        write(tmp_path / "short.de.zst", ["t1", "t3", ""]),
    )
    options = [f"--corpus-{side}={path}" for side, path in zip(("src", "trg"), short, strict=True)]
    assert {src for _, src, _ in run(corpus, tmp_path / "all.zst", *options)} >= {"▁s1", "▁s3"}
    found = {src for _, src, _ in run(corpus, tmp_path / "lex.zst", *options, "--longest", "2")}
    assert found <= {"▁s1", "▁s2"} and found
    with pytest.raises(UserError, match="no text to learn a shortlist from"):
        run(corpus, tmp_path / "none.zst", *options, "--longest", "1")


def test_empty_lines_change_nothing(corpus: Path, tmp_path: Path) -> None:
    sides = [list(read_lines(corpus / f"corpus.{side}.zst")) for side in ("en", "de")]
    options = []
    for flag, lines in zip(("src", "trg"), sides, strict=True):
        spread = [piece for number, line in enumerate(lines) for piece in ([line, ""] if number % 7 == 0 else [line])]
        options += [f"--corpus-{flag}", str(write(tmp_path / f"spread.{flag}.zst", spread))]
    assert run(corpus, tmp_path / "spread.zst", *options) == run(corpus, tmp_path / "lex.zst")
    # A side without words gives its partner's words nothing to be linked to.
    one_sided = [f"--corpus-src={write(tmp_path / 'one.en.zst', ['s1 s2'] * 3)}"]
    one_sided += [f"--corpus-trg={write(tmp_path / 'one.de.zst', ['', '', ''])}"]
    with pytest.raises(UserError, match="no text to learn a shortlist from"):
        run(corpus, tmp_path / "one.zst", *one_sided)


def test_a_vocabulary_of_another_language(corpus: Path, tmp_path: Path) -> None:
    for flag, path in (("--src-vocab", corpus / "vocab.de.spm"), ("--trg-vocab", corpus / "vocab.en.spm")):
        with pytest.raises(
            UserError, match=rf"% of the corpus's pieces are unknown to .*{path.name}: .* student's own"
        ):
            run(corpus, tmp_path / "lex.zst", flag, str(path))
    assert not (tmp_path / "lex.zst").exists()


@pytest.mark.parametrize("joint", [True, False])
def test_vocabularies_of_more_pieces_than_sixteen_bits(tmp_path: Path, joint: bool) -> None:
    words = 70_000

    def vocabulary(name: str, letters: str) -> Path:
        model = sentencepiece_model_pb2.ModelProto()
        for piece, kind in (("</s>", 3), ("<unk>", 2)):
            model.pieces.add(piece=piece, score=0, type=kind)
        for letter in letters:
            for number in range(words // len(letters)):
                model.pieces.add(piece=f"▁{letter}{number}", score=-10, type=1)
        model.trainer_spec.model_type = 3  # whole words
        model.trainer_spec.unk_id, model.trainer_spec.eos_id = 1, 0
        model.trainer_spec.bos_id = model.trainer_spec.pad_id = -1
        model.normalizer_spec.name = "identity"
        model.normalizer_spec.add_dummy_prefix = True
        path = tmp_path / f"{name}.spm"
        path.write_bytes(model.SerializeToString())
        return path

    vocabs = [vocabulary("joint", "st")] * 2 if joint else [vocabulary("src", "s"), vocabulary("trg", "t")]
    last = words // (2 if joint else 1) - 1
    numbers = [[last - (pair * 31 + place * 7) % 50 for place in range(5)] for pair in range(200)]
    sides = [[" ".join(f"{letter}{number}" for number in row) for row in numbers] for letter in "st"]
    flags = [
        f"--corpus-{side}={write(tmp_path / f'{side}.zst', lines)}"
        for side, lines in zip(("src", "trg"), sides, strict=True)
    ]
    flags += [f"--{side}-vocab={path}" for side, path in zip(("src", "trg"), vocabs, strict=True)]
    main([*flags, "--output", str(tmp_path / "lex.zst")])
    loaded = [Vocab.load(path) for path in vocabs]
    entries = lexicon.read_text(tmp_path / "lex.zst", loaded[0], loaded[1], best=1)
    source, target = loaded[0].encode([f"s{last}"])[0][0], loaded[1].encode([f"t{last}"])[0][0]
    assert target == words + 1 > 65_535
    assert entries.of(source).tolist() == [target]
    lexicon.write(entries, tmp_path / "lex.bin")
    assert lexicon.read(tmp_path / "lex.bin").of(source).tolist() == [target]
