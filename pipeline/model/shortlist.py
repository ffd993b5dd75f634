"""A lexical shortlist at work: the target pieces that a batch of sources is translated among.

They are those of Bergamot, the browser's engine: the first ids of the target vocabulary, the best targets of each
piece of the batch's sources, and with one vocabulary for both sides those pieces themselves. Fewer columns of the
output layer are computed, and what no source piece suggests cannot be said. The same sentence may be translated
differently in another batch.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, tensor

from pipeline.common.errors import UserError
from pipeline.model.formats import lexicon
from pipeline.model.vocab import Vocab


@dataclass(frozen=True)
class Shortlist:
    """A shortlist as text (`target source probability`), and how much of it is used: the `first` ids of the target
    vocabulary for every batch, and the `best` targets of each source piece."""

    path: Path
    first: int = lexicon.FIRST
    best: int = lexicon.BEST

    def to_json(self) -> dict[str, Any]:
        return {"first": self.first, "best": self.best}


class Candidates:
    """The candidates of batches."""

    def __init__(self, shortlist: Shortlist, vocabs: tuple[Vocab, Vocab]) -> None:
        """Raises UserError when the file is no shortlist, or not one of these vocabularies."""
        self.lexicon = lexicon.read_text(shortlist.path, *vocabs, shortlist.first, shortlist.best)
        self._trg_size, self._shared = len(vocabs[1]), vocabs[0].all_pieces == vocabs[1].all_pieces

    def of(self, sources: Sequence[Sequence[int]]) -> Tensor:
        """Target ids [C], ascending, of a batch of source ids."""
        pieces = {number for source in sources for number in source}
        return self.lexicon.candidates(tensor(sorted(pieces)), self._trg_size, self._shared)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a command that translates."""
    parser.add_argument(
        "--shortlist",
        type=Path,
        help="lexical shortlist as text (lex.s2t.pruned.zst): translate each batch among its candidates only",
    )
    for name, default, of_what in (
        ("first", lexicon.FIRST, "entries of the target vocabulary that are candidates of every batch"),
        ("best", lexicon.BEST, "targets of each source piece that are candidates"),
    ):
        parser.add_argument(
            f"--shortlist-{name}", type=int, metavar="N", help=f"{of_what}, with --shortlist (default: {default})"
        )


def unfit_for_others(model: Path) -> UserError:
    """The error for a model of another maker, which has its own vocabularies."""
    return UserError(
        f"{model} is a model of another maker, with vocabularies of its own: --shortlist is for model.npz and "
        "CTranslate2 models with --src-vocab and --trg-vocab"
    )


def from_flags(args: argparse.Namespace) -> Shortlist | None:
    """What the flags ask for. Raises UserError on impossible numbers, and numbers without a shortlist."""
    given = {"first": args.shortlist_first, "best": args.shortlist_best}
    numbers = {name: number for name, number in given.items() if number is not None}
    for name, number in numbers.items():
        if not args.shortlist:
            raise UserError(f"--shortlist-{name} says how much of a shortlist is used: name one with --shortlist")
        if number < 1:
            raise UserError(f"--shortlist-{name} must be at least 1, found {number}")
    return Shortlist(args.shortlist, **numbers) if args.shortlist else None
