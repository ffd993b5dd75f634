import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_lines
from pipeline.vocab.build import USER_SYMBOLS, main, sample_lines, train
from pipeline.vocab.normalisation import check_norm_rule

BYTES_AND_SPECIAL = 256 + 2


def text(seed: int, letters: str, lines: int = 400) -> list[str]:
    draw = random.Random(seed)
    words = ["".join(draw.choices(letters, k=draw.randint(2, 7))) for _ in range(300)]
    return [" ".join(draw.choices(words, k=draw.randint(3, 9))) for _ in range(lines)]


def write(path: Path, lines: list[str]) -> Path:
    with write_lines(path) as file:
        for line in lines:
            file.write(line)
    return path


Build = Callable[..., tuple[Path, Path]]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    write(tmp_path / "corpus.en.zst", text(1, "abcdefgh"))
    write(tmp_path / "corpus.ru.zst", text(2, "абвгдежз"))

    def run(*options: str, size: int = 480, name: str = "vocab") -> tuple[Path, Path]:
        outputs = tmp_path / f"{name}.en.spm", tmp_path / f"{name}.ru.spm"
        main(
            [
                *("--src", "en", "--trg", "ru", "--vocab-size", str(size)),
                *("--corpus-src", str(tmp_path / "corpus.en.zst"), "--corpus-trg", str(tmp_path / "corpus.ru.zst")),
                *("--output-src", str(outputs[0]), "--output-trg", str(outputs[1]), *options),
            ]
        )
        return outputs

    return run


def load(path: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def test_joint_vocabulary(build: Build) -> None:
    src, trg = build()
    assert src.read_bytes() == trg.read_bytes()
    vocab = load(src)
    assert vocab.get_piece_size() == 480
    assert (vocab.eos_id(), vocab.unk_id(), vocab.bos_id(), vocab.pad_id()) == (0, 1, -1, -1)
    assert vocab.is_byte(vocab.piece_to_id("<0x00>"))
    assert all(vocab.encode(symbol, out_type=str)[-1] == symbol for symbol in USER_SYMBOLS)
    assert vocab.decode(vocab.encode("abba где 🦊")) == "abba где 🦊"


def test_digits_stand_alone(build: Build, tmp_path: Path) -> None:
    lines = [f"{line} {1990 + number % 40}" for number, line in enumerate(text(1, "abcdefgh"))]
    vocab = load(build("--corpus-src", str(write(tmp_path / "dates.en.zst", lines)), size=600)[0])
    assert vocab.encode("2024", out_type=str)[-4:] == ["2", "0", "2", "4"]
    assert not [piece for piece in map(vocab.id_to_piece, range(600)) if re.fullmatch("▁?[0-9]{2,}", piece)]


def test_the_joint_vocabulary_knows_both_sides_and_split_ones_their_own(build: Build) -> None:
    joint = load(build()[0])
    en, ru = map(load, build("--split", name="split"))
    assert joint.piece_to_id("б") != joint.unk_id() != joint.piece_to_id("b")
    assert (en.piece_to_id("b"), ru.piece_to_id("б")) != (1, 1)
    assert (en.piece_to_id("б"), ru.piece_to_id("b")) == (1, 1)


def test_user_symbols_can_be_left_out(build: Build) -> None:
    vocab = load(build("--user-symbols")[0])
    assert vocab.get_piece_size() == 480
    assert vocab.piece_to_id("__source__") == vocab.unk_id()


def test_the_same_input_gives_the_same_bytes(build: Build) -> None:
    options = ("--sample-size", "300")
    first, again, other = (
        build(*options, "--seed", seed, name=name)[0].read_bytes()
        for seed, name in [("1", "a"), ("1", "b"), ("2", "c")]
    )
    assert first == again != other


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity", "nfc"])
def test_norm_rules_give_deterministic_models(rule: str) -> None:
    lines = text(3, "abcdefgh")
    assert train(lines, 400, rule, ()) == train(lines, 400, rule, ())


def test_norm_rule_shapes_the_text(build: Build) -> None:
    decomposed = unicodedata.normalize("NFD", "ﬁancé Việt 한국 Å")
    results = {
        rule: load(build("--norm-rule", rule, name=rule)[0]).normalize(decomposed).replace("▁", " ").strip()
        for rule in ("identity", "nfc", "nfkc")
    }
    assert results == {
        "identity": decomposed,
        "nfc": "ﬁancé Việt 한국 Å",
        "nfkc": "fiancé Việt 한국 Å",
    }


@pytest.fixture(scope="module")
def nfc_vocab() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=train(text(3, "abcdefgh"), 400, "nfc", ()))


LETTERS = st.characters(categories=["L"], max_codepoint=0x1FFFF)


@given(st.lists(LETTERS, max_size=8).map("".join), st.sampled_from(["NFC", "NFD"]))
def test_nfc_rule_is_nfc(nfc_vocab: sentencepiece.SentencePieceProcessor, letters: str, form: str) -> None:
    written = unicodedata.normalize(form, letters)
    assert nfc_vocab.normalize(written).strip("▁") == unicodedata.normalize("NFC", letters)


@pytest.mark.parametrize(
    ("name", "nearest"), [("nmt-nfkc", "nmt_nfkc"), ("NFKC", "nfkc"), ("nfkd", "nfkc"), ("identiy", "identity")]
)
def test_unknown_rule_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"mean '{nearest}'"):
        check_norm_rule(name)


@pytest.mark.parametrize(("size", "nearest"), [(31999, 32000), (1, 8), (0, 8), (-5, 8), (4004, 4000)])
def test_size_must_be_a_multiple_of_eight(build: Build, size: int, nearest: int) -> None:
    with pytest.raises(UserError, match=f"multiple of 8, such as {nearest}$"):
        build(size=size)


def test_the_largest_size_named_for_a_small_corpus_works(build: Build) -> None:
    with pytest.raises(UserError, match="too small for a vocabulary of 32000 pieces") as raised:
        build(size=32000)
    largest = int(str(raised.value).split("at most ")[1].split(";")[0])
    assert load(build(size=largest)[0]).get_piece_size() == largest
    with pytest.raises(UserError, match=f"at most {largest};"):
        build(size=largest + 8)


def test_the_smallest_size_named_works(build: Build) -> None:
    with pytest.raises(UserError, match="too small: bytes, symbols and the corpus's characters alone fill") as raised:
        build(size=64)
    smallest = int(str(raised.value).split("ask for ")[1].split(" ")[0])
    assert smallest >= BYTES_AND_SPECIAL + len(USER_SYMBOLS)
    assert load(build(size=smallest)[0]).get_piece_size() == smallest


def test_bad_corpora(build: Build, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.ru.zst"
    write(corpus, list(read_lines(corpus))[:-1])
    with pytest.raises(UserError, match=r"has 400 lines, but .*ru\.zst has 399"):
        build()
    write(tmp_path / "corpus.en.zst", [])
    write(corpus, [])
    with pytest.raises(UserError, match="holds no text"):
        build()
    corpus.unlink()
    with pytest.raises(UserError, match="does not exist"):
        build()


def test_text_that_is_not_utf8_is_named(build: Build, tmp_path: Path) -> None:
    (tmp_path / "corpus.en.zst").unlink()
    lines = "\n".join(text(1, "abcdefgh")).encode()
    plain = tmp_path / "plain.en"
    plain.write_bytes(b"\xff\xfe" + lines)
    with pytest.raises(UserError, match=r"plain\.en is not UTF-8"):
        build("--corpus-src", str(plain))


def test_split_vocabularies_need_two_names(build: Build, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot both be written"):
        build("--split", "--output-src", str(tmp_path / "v.spm"), "--output-trg", str(tmp_path / "v.spm"))


@given(st.integers(0, 50), st.integers(1, 60), st.integers(0, 5))
def test_sample_is_a_subsequence_of_the_asked_size(total: int, size: int, seed: int) -> None:
    lines = [str(number) for number in range(total)]
    sample = list(sample_lines(lines, total, size, seed))
    assert len(sample) == min(size, total)
    assert sample == sorted(set(sample), key=int)


def test_sample_is_uniform() -> None:
    lines = [str(number) for number in range(20)]
    counts = dict.fromkeys(lines, 0)
    for seed in range(4000):
        for line in sample_lines(lines, 20, 5, seed):
            counts[line] += 1
    assert all(850 < count < 1150 for count in counts.values())
