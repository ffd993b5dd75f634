import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import sentencepiece

from pipeline.common.words import split_words
from pipeline.train.alignments import pieces_of_words
from pipeline.train.encoding import Encoder
from pipeline.train.sampling import SubwordSampler

from .conftest import train_vocab

PARTS = ["straw", "black", "blue", "goose", "berry", "bird", "board", "fly", "sea", "weed", "be", "er", "ry"]
TEXT = "strawberry blackbird bluefly gooseboard"


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(1)
    texts = [" ".join("".join(rng.choices(PARTS, k=rng.randint(1, 4))) for _ in range(5)) for _ in range(600)]
    return train_vocab([*texts, "ö 1½"], tmp_path_factory.mktemp("vocab") / "vocab.spm", 90)


def sampled(vocab: Path, text: str, alpha: float, seed: int) -> tuple[list[int], list[tuple[int, int]]]:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(vocab))
    best = processor.encode(text, return_type="offset_mapping")
    sampler = SubwordSampler(processor, alpha)
    return sampler.sample_with_offsets(best["ids"], best["offsets"], random.Random(seed))


def test_segmentations_vary_but_spell_the_same_text(vocab: Path) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(vocab))
    drawn = [sampled(vocab, TEXT, 0.1, seed)[0] for seed in range(20)]
    assert {processor.decode(ids) for ids in drawn} == {TEXT}
    assert len({tuple(ids) for ids in drawn}) > 10
    assert sampled(vocab, TEXT, 0.1, 3) == sampled(vocab, TEXT, 0.1, 3)


def test_shares_are_those_of_sentencepiece(vocab: Path) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(vocab))
    best = processor.encode("gooseberry", return_type="offset_mapping")
    sampler, rng, count = SubwordSampler(processor, 0.2), random.Random(1), 4000
    ours = Counter(tuple(sampler.sample(best["ids"], rng)) for _ in range(count))
    theirs = Counter(
        tuple(processor.encode("gooseberry", enable_sampling=True, alpha=0.2, nbest_size=-1)) for _ in range(count)
    )
    assert len(theirs) > 5 < len(ours)
    assert sum(abs(ours[ids] - theirs[ids]) for ids in ours | theirs) / (2 * count) < 0.1


def test_offsets_follow_the_pieces(vocab: Path) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(vocab))
    text = "  strawberry ﬂy,  Ａ blackbird ö 1½"
    best = processor.encode(text, return_type="offset_mapping")
    expected = [processor.decode([best["ids"][i] for i in word]) for word in pieces_of_words(text, best["offsets"])]
    for seed in range(20):
        ids, offsets = sampled(vocab, text, 0.1, seed)
        words = pieces_of_words(text, offsets)
        assert len(words) == len(split_words(text))
        # "ﬂ" becomes two letters that stand for one: what they belong to does not change with the segmentation.
        assert [processor.decode([ids[index] for index in word]) for word in words] == expected


def test_every_process_draws_the_same(vocab: Path) -> None:
    script = (
        "import sys, sentencepiece\n"
        "from pipeline.train.encoding import Encoder\n"
        "processor = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])\n"
        "pairs = Encoder((processor, processor), (0.1, 0.1)).encode([(sys.argv[2], sys.argv[2])] * 9, (1, 2))\n"
        "print([(pair.src, pair.trg) for pair in pairs])\n"
    )
    command = [sys.executable, "-c", script, str(vocab), TEXT]
    drawn = {subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(2)}
    processor = sentencepiece.SentencePieceProcessor(model_file=str(vocab))
    here = Encoder((processor, processor), (0.1, 0.1)).encode([(TEXT, TEXT)] * 9, (1, 2))
    assert drawn == {f"{[(pair.src, pair.trg) for pair in here if pair]}\n"}
    assert len({tuple(pair.src) for pair in here if pair}) > 3
