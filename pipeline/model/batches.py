"""Sentences of like lengths in batches."""

from collections.abc import Iterator, Sequence


def length_batches(lengths: Sequence[int], most_sentences: int, most_tokens: int) -> Iterator[list[int]]:
    """Indices of sentences in batches, the longest first: the long batches do not come last and hold up the others.

    A batch has at most `most_sentences`, and no more than `most_tokens` with padding unless a single sentence has.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batch and (len(batch) >= most_sentences or (len(batch) + 1) * lengths[batch[0]] > most_tokens):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
