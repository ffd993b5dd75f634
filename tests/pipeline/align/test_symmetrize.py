import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.align.symmetrize import grow_diag_final_and

Link = tuple[int, int]
Sentence = tuple[list[int], list[int]]  # source position of each target word, target position of each source word


@st.composite
def sentences(draw: st.DrawFn) -> Sentence:
    n, m = draw(st.integers(0, 7)), draw(st.integers(0, 7))
    return (
        draw(st.lists(st.integers(-1, n - 1), min_size=m, max_size=m)),
        draw(st.lists(st.integers(-1, m - 1), min_size=n, max_size=n)),
    )


def symmetrise(corpus: list[Sentence]) -> list[list[Link]]:
    links = grow_diag_final_and(
        np.array([source for forward, _ in corpus for source in forward], np.int64),
        np.array([target for _, backward in corpus for target in backward], np.int64),
        np.array([len(backward) for _, backward in corpus], np.int64),
        np.array([len(forward) for forward, _ in corpus], np.int64),
    )
    result: list[list[Link]] = [[] for _ in corpus]
    for pair, src, trg in zip(links.pair.tolist(), links.src.tolist(), links.trg.tolist(), strict=True):
        result[pair].append((src, trg))
    return result


def directions(sentence: Sentence) -> tuple[set[Link], set[Link]]:
    forward, backward = sentence
    return (
        {(i, j) for j, i in enumerate(forward) if i >= 0},
        {(i, j) for i, j in enumerate(backward) if j >= 0},
    )


def one_at_a_time(sentence: Sentence) -> list[Link]:
    """The definition, for one sentence, adding the first link that may be added until there is none."""
    forward, backward = directions(sentence)
    chosen = forward & backward

    def free(link: Link) -> tuple[bool, bool]:
        return all(i != link[0] for i, _ in chosen), all(j != link[1] for _, j in chosen)

    def touched(link: Link) -> bool:
        return any(max(abs(i - link[0]), abs(j - link[1])) == 1 for i, j in chosen)

    def add(candidates: set[Link], both: bool) -> None:
        while eligible := [
            link
            for link in sorted(candidates - chosen)
            if (all(free(link)) if both else any(free(link)) and touched(link))
        ]:
            chosen.add(eligible[0])

    add(forward | backward, both=False)
    add(forward, both=True)
    add(backward, both=True)
    return sorted(chosen)


@given(st.lists(sentences(), max_size=6))
def test_is_what_the_definition_says_for_each_sentence(corpus: list[Sentence]) -> None:
    assert symmetrise(corpus) == [one_at_a_time(sentence) for sentence in corpus]


@given(st.lists(sentences(), min_size=1, max_size=6))
def test_lies_between_intersection_and_union(corpus: list[Sentence]) -> None:
    for sentence, links in zip(corpus, symmetrise(corpus), strict=True):
        forward, backward = directions(sentence)
        assert forward & backward <= set(links) <= forward | backward
        assert all(0 <= i < len(sentence[1]) and 0 <= j < len(sentence[0]) for i, j in links)
        assert links == sorted(set(links))


def test_grows_diagonally_from_the_intersection() -> None:
    # Target word 1 goes to source word 1 in one direction only, beside the link 0-0 of both.
    assert symmetrise([([0, 1], [0, -1])]) == [[(0, 0), (1, 1)]]


def test_a_link_far_from_the_others_needs_two_free_words() -> None:
    assert symmetrise([([0, -1, -1, 3], [0, -1, -1, -1])]) == [[(0, 0), (3, 3)]]
    assert symmetrise([([0, -1, -1, 0], [0, -1, -1, -1])]) == [[(0, 0)]]
