"""Vocabularies that come as lists of pieces beside SentencePiece models, and models made to fit ours.

OPUS-MT, and Hugging Face's conversions of it, number the rows of embeddings in lists, often one joint list for both
sides, while source.spm and target.spm only segment. Here a vocabulary is one SentencePiece model whose ids are the
rows, so each side's is made to fit its list (`pieces.fit`):

- `</s>` and `<unk>` move to rows 0 and 1 where they are not there already, in the vocabulary and in the model;
- a `>>xxx<<` that chooses the target language stays one piece;
- pieces of a SentencePiece model that the list lacks, which Marian reads as `<unk>`, get rows at the end: `<unk>`'s
  embedding, so that a source means the same, and `<unk>`'s bias less 20, so that no translation has them.

What remains different: a character that stands alone, that a side's own SentencePiece model does not know but the joint
list does, is `<unk>` here and its own row there. `same_segmentation` counts the sentences that this touches.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from pipeline.common.errors import UserError
from pipeline.model.formats import npz, pieces
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import UNK_ID

logger = logging.getLogger(__name__)

SPM_NAMES = ("source.spm", "target.spm")
UNLISTED_BIAS = 20.0  # by which a piece without a row of its own is less likely than <unk>


@dataclass(frozen=True)
class Side:
    """The piece of each row, and the SentencePiece model that segments text; `name` is for errors."""

    listed: list[str]
    spm: bytes
    name: str


class ListedVocabs:
    """The vocabularies of both sides."""

    def __init__(self, source: Side, target: Side) -> None:
        """Raises UserError when a list has no `</s>` or `<unk>`, or a SentencePiece model is none."""
        named = [
            dataclasses.replace(side, listed=pieces.name_rows(side.listed, source.spm, source.name))
            for side in (source, target)
        ]
        self._sides = named
        self._joint = named[0].listed == named[1].listed
        self._orders = [_order(side) for side in named]
        added = [pieces.unlisted(side.spm, side.listed, side.name) for side in named]
        if self._joint:
            added = [list(dict.fromkeys(added[0] + added[1]))] * 2
        self._added = added

    @property
    def keep_rows(self) -> bool:
        """Whether the model's rows stay as they are."""
        return not any(self._added) and all(order == list(range(len(order))) for order in self._orders)

    def fit(self, model: Transformer) -> Transformer:
        """The model with the rows that `write` numbers. Raises UserError for a model of other vocabularies."""
        sides, sizes = self._sides, model.config.dim_vocabs
        for side, size in zip(sides, sizes, strict=True):
            if len(side.listed) != size:
                raise UserError(
                    f"{side.name} lists {len(side.listed):,} pieces, but the model was trained with {size:,}"
                )
        if model.config.shares_embeddings and not self._joint:
            raise UserError(
                f"the model has one embedding for both sides, but {sides[0].name} and {sides[1].name} differ"
            )
        for side, names in list(zip(sides, self._added, strict=True))[: 1 if self._joint else 2]:
            if names:
                logger.info(
                    f"{len(names):,} pieces of the SentencePiece models are not in {side.name}, which reads them as "
                    "<unk>: they get rows that equal it"
                )
        if self.keep_rows:
            return model
        return _with_rows(model, self._orders, [len(names) for names in self._added])

    def same_segmentation(self, texts: Sequence[str]) -> int:
        """How many source texts get the rows that the list gives to the pieces of the SentencePiece model itself."""
        side, order = self._sides[0], self._orders[0]
        original = sentencepiece.SentencePieceProcessor(model_proto=side.spm)
        fitted = sentencepiece.SentencePieceProcessor(model_proto=self._fitted(0))
        rows = {side.listed[row]: place for place, row in enumerate(order)}
        same = 0
        for text in texts:
            first, _, rest = text.partition(" ")
            beginning = pieces.name_rows([first], side.spm, side.name)
            if not pieces.tag(first) or beginning[0] not in rows:
                beginning, rest = [], text
            read = [rows.get(piece, UNK_ID) for piece in beginning + original.encode(rest, out_type=str)]
            ours = [row if row < len(order) else UNK_ID for row in fitted.encode(text)]
            same += read == ours
        return same

    def write(self, folder: str | Path) -> tuple[Path, Path]:
        """Write source.spm and target.spm, whose ids are the rows of the model of `fit`; returns their paths."""
        outputs = Path(folder) / SPM_NAMES[0], Path(folder) / SPM_NAMES[1]
        for place, output in enumerate(outputs):
            output.write_bytes(self._fitted(place))
        return outputs

    def _fitted(self, place: int) -> bytes:
        side, order, added = self._sides[place], self._orders[place], self._added[place]
        return pieces.fit(side.spm, [side.listed[row] for row in order] + added, side.name)


def by_row(rows: Mapping[str, Any], name: str) -> list[str]:
    """The pieces of a mapping of pieces to rows, in order. Raises UserError when the rows are not 0, 1, 2 …"""
    try:
        numbered = sorted((int(row), piece) for piece, row in rows.items())
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} is not a vocabulary: it must map pieces to row numbers ({error})") from error
    for expected, (row, piece) in enumerate(numbered):
        if row != expected:
            raise UserError(f"{name} has row {row} for {piece!r} where row {expected} is due: rows must be 0, 1, 2 …")
    return [piece for _, piece in numbered]


def _order(side: Side) -> list[int]:
    """Old rows in their new order: the end of sentence and <unk> first."""
    for piece in (pieces.EOS, pieces.UNK):
        if piece not in side.listed:
            raise UserError(f"{side.name} has no piece {piece}")
    special = [side.listed.index(pieces.EOS), side.listed.index(pieces.UNK)]
    return special + [row for row in range(len(side.listed)) if row not in special]


def _with_rows(model: Transformer, orders: Sequence[Sequence[int]], added: Sequence[int]) -> Transformer:
    """The model with its vocabularies' rows in another order, and at the end rows like that of <unk>."""
    old = model.config
    sizes = old.dim_vocabs[0] + added[0], old.dim_vocabs[1] + added[1]
    # Only a bias can make a row like <unk>'s less likely than <unk>.
    config = dataclasses.replace(old, dim_vocabs=sizes, output_omit_bias=old.output_omit_bias and not added[1])
    arrays = npz.parameter_arrays(model)
    if old.output_omit_bias and not config.output_omit_bias:
        arrays[npz.OUTPUT_BIAS] = np.zeros((1, old.dim_vocabs[1]), np.float32)
    source, target = ([*order, *[order[1]] * count] for order, count in zip(orders, added, strict=True))
    for name, rows, axis in (
        ("Wemb", source, 0),
        ("encoder_Wemb", source, 0),
        ("decoder_Wemb", target, 0),
        (npz.OUTPUT, target, 1),
        (npz.OUTPUT_BIAS, target, 1),
    ):
        if name in arrays:
            arrays[name] = np.take(arrays[name], rows, axis=axis)
    if added[1]:
        arrays[npz.OUTPUT_BIAS][0, old.dim_vocabs[1] :] -= UNLISTED_BIAS
    return npz.assemble(config, arrays, "the model")
