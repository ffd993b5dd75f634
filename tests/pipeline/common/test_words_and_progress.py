"""Words, progress lines, and the frame around command lines."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.progress import Progress, format_duration
from pipeline.common.words import split_words, word_spans


@given(st.text())
def test_spans_are_the_words_and_nothing_visible_is_lost(text: str) -> None:
    spans = word_spans(text)
    assert [text[start:end] for start, end in spans] == split_words(text)
    assert "".join(split_words(text)) == "".join(text.split())


def test_words_of_several_scripts() -> None:
    assert split_words("Don't say “über-cool”!") == ["Don't", "say", "“", "über", "-", "cool", "”", "!"]
    assert split_words("日本語 ok") == ["日", "本", "語", "ok"]
    assert split_words("क्षमा करें") == ["क्षमा", "करें"]
    assert split_words("ภาษา") == ["ภ", "า", "ษ", "า"]
    assert split_words("Привет, мир") == ["Привет", ",", "мир"]


def test_progress_says_how_much_how_fast_and_how_long() -> None:
    progress = Progress("cleaning", "pairs", total=1000)
    progress.done = 250
    assert progress.line(progress._start + 10) == "cleaning: 250 of 1,000 pairs (25 %), 25 pairs/s, 30 s left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (42, "42 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (59.9, "60 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        ("UserError('the corpus is empty')", 1, "error: the corpus is empty"),
        ("TransientError('503')", 75, "error: 503"),
        ("MemoryError()", 1, "error: out of memory"),
        ("OSError(28, 'No space left on device', 'x.zst')", 1, "error: the disk is full while writing x.zst"),
        ("PermissionError(13, 'Permission denied', 'x.zst')", 1, "error: x.zst: Permission denied"),
    ],
)
def test_errors_end_in_one_sentence_and_an_exit_code(raised: str, code: int, said: str) -> None:
    program = (
        "from pipeline.common.command import run_command\n"
        "from pipeline.common.errors import *\n"
        f"def main(arguments): raise {raised}\n"
        "run_command(main)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
