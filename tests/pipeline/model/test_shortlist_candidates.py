"""What a batch is translated among is the same from the text shortlist, from the binary one, and by the definition."""

import argparse
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import padded, tiny_vocab, trained_model

from pipeline.common.errors import UserError
from pipeline.common.files import write_lines
from pipeline.model.formats import lexicon
from pipeline.model.search import beam_search
from pipeline.model.shortlist import Candidates, Shortlist, add_flags, from_flags

FIRST, BEST = 20, 5
Entries = dict[int, dict[int, float]]


def draw_entries(path: Path, seed: int) -> Entries:
    """Random targets of random source pieces of the tiny vocabulary, written as a shortlist."""
    draw, pieces = random.Random(seed), tiny_vocab().all_pieces
    entries = {source: {target: draw.random() for target in draw.sample(range(400), 12)} for source in range(0, 400, 3)}
    with write_lines(path) as file:
        for source, targets in entries.items():
            for target, probability in targets.items():
                file.write(f"{pieces[target]} {pieces[source]} {probability:.8f}")
    return entries


def by_definition(entries: Entries, batch: list[list[int]], shared: bool) -> list[int]:
    sources = {0, *(number for source in batch for number in source)}
    found = set(range(FIRST))
    for source in sources:
        targets = entries.get(source, {})
        found |= set(sorted(targets, key=lambda target: -round(targets[target], 8))[:BEST])
    found |= sources if shared else set()
    for number in range(FIRST, 400):
        if len(found) % 8 == 0:
            break
        found.add(number)
    return sorted(found)


@pytest.mark.parametrize("shared", [True, False], ids=["joint", "separate"])
def test_text_and_binary_give_the_same(tmp_path: Path, shared: bool) -> None:
    vocabs = tiny_vocab(), tiny_vocab()
    if not shared:
        vocabs[1].all_pieces[398:] = reversed(vocabs[1].all_pieces[398:])
    for seed in range(3):
        entries = draw_entries(tmp_path / "lex.zst", seed)
        if not shared:  # the text names pieces: 398 and 399 have changed places
            swapped = {398: 399, 399: 398}
            entries = {
                source: {swapped.get(target, target): value for target, value in targets.items()}
                for source, targets in entries.items()
            }
        candidates = Candidates(Shortlist(tmp_path / "lex.zst", FIRST, BEST), vocabs)
        lexicon.write(candidates.lexicon, tmp_path / "lex.bin")
        binary = lexicon.read(tmp_path / "lex.bin")
        draw = random.Random(seed)
        for _ in range(20):
            batch = [draw.choices(range(2, 399), k=draw.randint(1, 9)) for _ in range(draw.randint(1, 4))]
            found = candidates.of(batch).tolist()
            assert found == by_definition(entries, batch, shared)
            ids, _ = padded([[*source, 0] for source in batch])
            assert found == binary.candidates(ids, len(vocabs[1]), shared).tolist()


def test_the_search_chooses_among_them(tmp_path: Path) -> None:
    vocab = tiny_vocab()
    draw_entries(tmp_path / "lex.zst", seed=1)
    batch = vocab.encode(["small houses and old books"], add_eos=False)
    src, mask = padded([[*source, 0] for source in batch])
    candidates = Candidates(Shortlist(tmp_path / "lex.zst", FIRST, BEST), (vocab, vocab)).of(batch)
    found = beam_search([trained_model()], src, mask, 4, n_best=4, candidates=candidates)
    assert all(set(hypothesis.ids) <= set(candidates.tolist()) for hypothesis in found[0])
    everything = Candidates(Shortlist(tmp_path / "lex.zst", len(vocab), BEST), (vocab, vocab)).of(batch)
    assert everything.tolist() == list(range(len(vocab)))
    free = beam_search([trained_model()], src, mask, 4)
    assert beam_search([trained_model()], src, mask, 4, candidates=everything)[0][0].ids == free[0][0].ids


def test_vocabularies_beyond_sixteen_bits() -> None:
    size, source, target = 70_001, 69_999, 70_000
    offsets = np.zeros(size + 1, np.uint64)
    offsets[source + 1 :] = 1
    made = lexicon.Lexicon(offsets, np.array([target], np.uint32), first=7, best=1)
    assert made.candidates(torch.tensor([[source, 0]]), size, shared_vocab=False).tolist() == [*range(7), target]
    assert source in made.candidates(torch.tensor([[source, 0]]), size, shared_vocab=True).tolist()


def test_a_vocabulary_that_lacks_pieces(tmp_path: Path) -> None:
    vocab, smaller = tiny_vocab(), tiny_vocab()
    draw_entries(tmp_path / "lex.zst", seed=1)
    missing = smaller.all_pieces.pop()
    with pytest.raises(UserError, match=rf"line \d+: '{missing}' is no piece of its vocabulary; was the shortlist"):
        Candidates(Shortlist(tmp_path / "lex.zst"), (vocab, smaller))


def test_flags() -> None:
    def parse(*flags: str) -> Shortlist | None:
        parser = argparse.ArgumentParser()
        add_flags(parser)
        return from_flags(parser.parse_args(flags))

    assert parse() is None
    assert parse("--shortlist", "lex.zst") == Shortlist(Path("lex.zst"), 50, 50)
    assert parse("--shortlist", "lex.zst", "--shortlist-best", "9") == Shortlist(Path("lex.zst"), 50, 9)
    with pytest.raises(UserError, match="name one with --shortlist"):
        parse("--shortlist-best", "9")
    with pytest.raises(UserError, match="--shortlist-first must be at least 1, found -3"):
        parse("--shortlist", "lex.zst", "--shortlist-first", "-3")
