"""CTranslate2's vocabulary map, `vmap.txt` in a model directory: a lexical shortlist for `use_vmap`.

A line is `source piece<TAB>target pieces`, with spaces between them; the line of no source piece has the target pieces
of every batch. CTranslate2 translates a batch among the union of the lines of all its source pieces; the unknown piece
and the end of sentence are always in it. So the candidates of a batch are those of Bergamot's binary shortlist, less
what fills that up to a multiple of eight: CTranslate2 fills up with columns that cannot be chosen.
"""

from collections.abc import Iterator
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.common.files import write_lines
from pipeline.model.formats import lexicon
from pipeline.model.formats.lexicon import Lexicon
from pipeline.model.vocab import EOS_ID, Vocab

NAME = "vmap.txt"  # in a model directory
_SEPARATORS = frozenset("\t \n\r")


def write(shortlist: Path, vocabs: tuple[Vocab, Vocab], first: int, best: int, path: Path) -> None:
    """Write the vocabulary map of a text shortlist, under a temporary name first: the `first` pieces of the target
    vocabulary for every batch, and the `best` of each source piece.

    Raises UserError when the shortlist is none, or not of these vocabularies, or a piece cannot be written.
    """
    write_lexicon(lexicon.read_text(shortlist, *vocabs, first, best), vocabs, path)


def write_lexicon(entries: Lexicon, vocabs: tuple[Vocab, Vocab], path: Path) -> None:
    """Write the vocabulary map of a shortlist that is read already. Raises UserError as `write` does."""
    with write_lines(path) as file:
        for line in _lines(entries, vocabs):
            file.write(line)


def _lines(entries: Lexicon, vocabs: tuple[Vocab, Vocab]) -> Iterator[str]:
    source_pieces, target_pieces = vocabs[0].all_pieces, vocabs[1].all_pieces
    shared = source_pieces == target_pieces
    # CTranslate2 looks up the pieces of a source before it adds the end of sentence, which every source has.
    always = sorted({*range(min(entries.first, len(target_pieces))), *entries.of(EOS_ID).tolist()})
    yield "\t" + " ".join(_spelt(target_pieces[target]) for target in always)
    known = set(always)
    for source, piece in enumerate(source_pieces):
        # With one vocabulary for both sides Bergamot lets a source piece be copied.
        found = {*entries.of(source).tolist(), *([source] if shared else [])} - known
        if source != EOS_ID and found:
            yield f"{_spelt(piece)}\t" + " ".join(_spelt(target_pieces[target]) for target in sorted(found))


def _spelt(piece: str) -> str:
    if not piece or not _SEPARATORS.isdisjoint(piece):
        raise UserError(
            f"CTranslate2's vocabulary map cannot hold the piece {piece!r}: it is empty, or has a space, a tab or a "
            "line end in it, which separate pieces there; build the vocabulary with a normalisation that makes spaces "
            "of them (nmt_nfkc), or do without the shortlist"
        )
    return piece
