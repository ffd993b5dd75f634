"""Word alignments over somebody's tokens, brought over to the words that this project counts."""

from bisect import bisect_left, bisect_right

from pipeline.common.alignments import parse_points
from pipeline.common.errors import UserError
from pipeline.common.words import word_spans

SPACE_TOKEN = "\u2581"  # stands for white space in text that is tokenised without loss
Span = tuple[int, int]


def word_links(links: str, texts: tuple[str, str], tokenised: tuple[str, str]) -> str:
    """Links `i-j …` between tokens as links between the words of the texts, sorted, each once.

    Tokens stand between single spaces and are counted from 0, `▁` too. Words are those of
    `pipeline.common.words.split_words`; a link of two tokens links all words that they hold a part of, and one of a
    `▁` links none. Raises UserError when a token is not the text's, and when a link is malformed or leads out of a
    sentence.
    """
    words = [_words_of_tokens(text, tokens) for text, tokens in zip(texts, tokenised, strict=True)]
    found: set[tuple[int, int]] = set()
    for i, j in parse_points(links):
        if i >= len(words[0]) or j >= len(words[1]):
            raise UserError(
                f"the link {i}-{j} leads out of sentences of {len(words[0])} and {len(words[1])} tokens: the "
                "alignments belong to other text"
            )
        found.update((a, b) for a in words[0][i] for b in words[1][j])
    return " ".join(f"{a}-{b}" for a, b in sorted(found))


def _words_of_tokens(text: str, tokenised: str) -> list[range]:
    """For each token the words of the text that it holds a part of."""
    spans = word_spans(text)
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    return [
        # The words that end behind the token's begin and begin before its end.
        range(bisect_right(ends, start), bisect_left(starts, end)) if end > start else range(0)
        for start, end in _token_spans(text, tokenised)
    ]


def _token_spans(text: str, tokenised: str) -> list[Span]:
    """Where each token stands in the text, in characters; nowhere (0, 0) for a `▁`."""
    spans: list[Span] = []
    position = 0
    for token in tokenised.split(" ") if tokenised else []:
        while position < len(text) and text[position].isspace():
            position += 1
        if text.startswith(token, position) and token:
            spans.append((position, position + len(token)))
            position += len(token)
        elif not token.strip(SPACE_TOKEN):
            spans.append((0, 0))
        else:
            raise UserError(
                f"the token {token!r} is not what stands in the text there ({text[position : position + 40]!r}): the "
                "tokenised text belongs to other text, or changed it"
            )
    if rest := text[position:].strip():
        raise UserError(f"the tokens end before the text does, at {rest[:40]!r}")
    return spans
