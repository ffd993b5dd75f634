"""Batches of like lengths."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.batches import length_batches


@given(st.lists(st.integers(1, 60)), st.integers(1, 10), st.integers(1, 200))
def test_every_sentence_once_within_the_limits(lengths, most_sentences, most_tokens):
    found = list(length_batches(lengths, most_sentences, most_tokens))
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) <= most_sentences
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= most_tokens
    longest = [max(lengths[place] for place in batch) for batch in found]
    assert longest == sorted(longest, reverse=True)
