"""CTranslate2's vocabulary map restricts a translation as the shortlist says."""

from pathlib import Path

import pytest
import torch
from tiny_model import tiny_files, tiny_vocab, toy_pairs, trained_files, trained_model

from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_lines
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.formats import lexicon, vocabulary_map
from pipeline.model.vocab import Vocab


def write_entries(path: Path, entries: list[tuple[int, int]]) -> Path:
    """A text shortlist of source and target ids of the tiny vocabulary, each source's best first."""
    pieces = tiny_vocab().all_pieces
    with write_lines(path) as file:
        for rank, (source, target) in enumerate(entries):
            file.write(f"{pieces[target]} {pieces[source]} {1 / (1 + rank):.8f}")
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary-map") / "ct2"
    ctranslate2_format.save(trained_model(), path, (trained_files()[1], trained_files()[1]))
    return path


def translate(directory: Path, sources: list[list[str]], use_vmap: bool) -> list[list[str]]:
    translator = ctranslate2_format.load(directory)
    results = translator.translate_batch(sources, beam_size=2, use_vmap=use_vmap, max_decoding_length=30)
    return [result.hypotheses[0] for result in results]


def test_the_lines_are_those_of_the_binary_shortlist(tmp_path):
    vocab = tiny_vocab()
    pieces = vocab.all_pieces
    text = write_entries(tmp_path / "lex.zst", [(90, 70), (90, 3), (90, 80), (0, 60), (91, 0), (399, 50)])
    vocabulary_map.write(text, (vocab, vocab), first=8, best=2, path=tmp_path / "vmap.txt")
    lines = dict(line.split("\t") for line in read_lines(tmp_path / "vmap.txt"))
    # What is there for every batch is not said again: 3, and 0 for the piece 91, which can be copied all the same.
    assert lines[""].split(" ") == [*pieces[:8], pieces[60]]
    assert lines[pieces[90]].split(" ") == [pieces[70], pieces[90]]
    assert lines[pieces[91]].split(" ") == [pieces[91]] and lines[pieces[399]].split(" ") == [pieces[50], pieces[399]]
    binary = lexicon.read_text(text, vocab, vocab, first=8, best=2)
    for sources in ([90, 91], [399], [5, 90, 399]):
        names = {name for source in sources for name in lines.get(pieces[source], "").split(" ") if name}
        mapped = {vocab.all_pieces.index(name) for name in names | set(lines[""].split(" "))}
        theirs = binary.candidates(torch.tensor([[*sources, 0]]), len(vocab), shared_vocab=True).tolist()
        assert mapped <= set(theirs) and len(theirs) - len(mapped) < lexicon.COLUMNS


def test_separate_vocabularies_copy_nothing(tmp_path):
    vocab, other = tiny_vocab(), tiny_vocab()
    other.all_pieces = [*other.all_pieces[:-2], *other.all_pieces[:-3:-1]]
    text = write_entries(tmp_path / "lex.zst", [(90, 70)])
    vocabulary_map.write(text, (vocab, other), first=8, best=2, path=tmp_path / "vmap.txt")
    pieces = vocab.all_pieces
    assert list(read_lines(tmp_path / "vmap.txt"))[1:] == [f"{pieces[90]}\t{pieces[70]}"]


def test_ctranslate2_translates_among_the_pieces_of_the_map(tmp_path, directory):
    vocab = tiny_vocab()
    sources = vocab.pieces([source for source, _ in toy_pairs(20, seed=2)])
    free = translate(directory, sources, use_vmap=False)
    used = [vocab.all_pieces.index(piece) for piece in {piece for found in free for piece in found}]
    kept = [target for target in sorted(used) if target >= 8][::2]
    source_ids = sorted({vocab.all_pieces.index(piece) for source in sources for piece in source})
    text = write_entries(tmp_path / "lex.zst", [(source, target) for source in source_ids for target in kept])
    vocabulary_map.write(text, (vocab, vocab), first=8, best=400, path=directory / vocabulary_map.NAME)
    allowed = {vocab.all_pieces[number] for number in {*range(8), *kept, *source_ids}}
    assert not {piece for found in free for piece in found} <= allowed
    restricted = translate(directory, sources, use_vmap=True)
    assert {piece for found in restricted for piece in found} <= allowed
    assert restricted != free and any(restricted)
    # Without use_vmap the file changes nothing.
    assert translate(directory, sources, use_vmap=False) == free


def test_a_map_that_allows_everything_changes_nothing(tmp_path, directory):
    vocab = tiny_vocab()
    sources = vocab.pieces([source for source, _ in toy_pairs(20, seed=2)])
    text = write_entries(tmp_path / "lex.zst", [(5, 6)])
    vocabulary_map.write(text, (vocab, vocab), first=len(vocab), best=50, path=directory / vocabulary_map.NAME)
    assert translate(directory, sources, use_vmap=True) == translate(directory, sources, use_vmap=False)


def test_the_end_of_sentence_brings_its_entries(tmp_path, directory):
    # CTranslate2 adds the end of sentence after it has looked the pieces up.
    vocab = tiny_vocab()
    text = write_entries(tmp_path / "lex.zst", [(0, target) for target in range(2, len(vocab))])
    vocabulary_map.write(text, (vocab, vocab), first=1, best=len(vocab), path=directory / vocabulary_map.NAME)
    sources = vocab.pieces([source for source, _ in toy_pairs(20, seed=2)])
    assert translate(directory, sources, use_vmap=True) == translate(directory, sources, use_vmap=False)


def test_what_cannot_be_written(tmp_path):
    vocab = Vocab.load(tiny_files()[1])
    text = write_entries(tmp_path / "lex.zst", [(5, 6)])
    path = tmp_path / "vmap.txt"
    with pytest.raises(UserError, match="both must be at least 1"):
        vocabulary_map.write(text, (vocab, vocab), first=0, best=50, path=path)
    vocab.all_pieces[200] = "\t"
    with pytest.raises(UserError, match=r"cannot hold the piece '\\t'"):
        vocabulary_map.write(text, (vocab, vocab), first=400, best=50, path=path)
    assert not path.exists()
