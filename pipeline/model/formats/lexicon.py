"""Lexical shortlists: for each source piece the target pieces that its translations are likely to need.

As text a line is `target source probability`, of pieces. For Bergamot it is a binary file (`lex.50.50.ende.s2t.bin`) of
the `best` ids of each source piece; with them come, for every batch, the `first` ids of the target vocabulary.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.common.errors import UserError
from pipeline.common.files import read_lines
from pipeline.model.vocab import EOS_ID, Vocab

MAGIC = 0xF11A48D5013417F5
FIRST, BEST = 50, 50
NULL = "NULL"  # what word aligners call no word
COLUMNS = 8  # the engine takes columns of the output layer by eights
_HEADER = struct.Struct("<6Q")  # magic, checksum, first, best, offsets, ids
_CHECKED = 16  # the checksum is of what follows it

Ids = np.ndarray[Any, np.dtype[np.uint32]]
Offsets = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True)
class Lexicon:
    """The ids of source piece s are ids[offsets[s] : offsets[s + 1]], ascending."""

    offsets: Offsets
    ids: Ids
    first: int = FIRST
    best: int = BEST

    def __len__(self) -> int:
        """Size of the source vocabulary."""
        return len(self.offsets) - 1

    def of(self, source: int) -> Ids:
        """The target ids of a source piece."""
        return self.ids[int(self.offsets[source]) : int(self.offsets[source + 1])]

    def candidates(self, sources: torch.Tensor, trg_size: int, shared_vocab: bool) -> torch.Tensor:
        """The target ids, ascending, among which the engine translates a batch of sources, ids [B, S] with their ends:
        the first ones, those of all source pieces, and with a shared vocabulary the source pieces themselves, filled
        up to a multiple of eight with the lowest others."""
        pieces = np.unique(np.append(sources.cpu().numpy(), EOS_ID))
        found = np.zeros(trg_size, bool)
        found[: self.first] = True
        found[np.concatenate([self.of(piece) for piece in pieces.tolist()])] = True
        if shared_vocab:
            found[pieces] = True
        others = np.flatnonzero(~found[self.first :])[: -np.count_nonzero(found) % COLUMNS]
        found[self.first + others] = True
        return torch.from_numpy(np.flatnonzero(found))


def read_text(path: str | Path, src_vocab: Vocab, trg_vocab: Vocab, first: int = FIRST, best: int = BEST) -> Lexicon:
    """The `best` entries of each source piece in a text shortlist (plain, gz, zst), by falling probability.

    Raises UserError, with the line, for anything that is no entry, or of pieces that the vocabularies do not have.
    """
    if first < 1 or best < 1:
        raise UserError(f"a shortlist of the {first} first and {best} best pieces: both must be at least 1")
    numbers = [{piece: number for number, piece in enumerate(vocab.all_pieces)} for vocab in (src_vocab, trg_vocab)]
    sources, targets, probabilities = [], [], []
    for line_number, line in enumerate(read_lines(path), start=1):
        fields = line.split(" ")
        try:
            target, source, probability = fields[0], fields[1], float(fields[2])
        except (IndexError, ValueError) as error:
            raise UserError(f"{path} line {line_number}: {line[:80]!r} is not 'target source probability'") from error
        if NULL in (target, source):
            continue
        try:
            sources.append(numbers[0][source])
            targets.append(numbers[1][target])
        except KeyError as error:
            raise UserError(
                f"{path} line {line_number}: {error.args[0]!r} is no piece of its vocabulary; was the shortlist made "
                "with these vocabularies?"
            ) from error
        probabilities.append(probability)
    return _of_entries(
        np.array(sources, np.int64), np.array(targets, np.int64), np.array(probabilities), first, best, len(src_vocab)
    )


def _of_entries(sources: Any, targets: Any, probabilities: Any, first: int, best: int, size: int) -> Lexicon:
    order = np.lexsort((targets, -probabilities, sources))
    sources, targets = sources[order], targets[order]
    starts = np.searchsorted(sources, np.arange(size + 1))
    rank = np.arange(len(sources)) - starts[sources]
    sources, targets = sources[rank < best], targets[rank < best]
    if not len(sources) or sources[-1] != size - 1:
        # The engine takes a last piece without any entry for damage.
        sources, targets = np.append(sources, size - 1), np.append(targets, EOS_ID)
    order = np.lexsort((targets, sources))
    offsets = np.searchsorted(sources[order], np.arange(size + 1)).astype("<u8")
    return Lexicon(offsets, targets[order].astype("<u4"), first, best)


def write(lexicon: Lexicon, path: str | Path) -> None:
    """Write the binary file, under a temporary name first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(_content(lexicon))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | Path) -> Lexicon:
    """Read a binary file. Raises UserError when it is none, or damaged."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    if len(content) < _HEADER.size or int.from_bytes(content[:8], "little") != MAGIC:
        raise UserError(f"{path} is not a binary shortlist: it does not begin with the magic number of one")
    _, stored, first, best, offsets, ids = _HEADER.unpack_from(content)
    if len(content) != _HEADER.size + 8 * offsets + 4 * ids:
        raise UserError(
            f"{path} is not whole: {offsets} offsets and {ids} ids need {_HEADER.size + 8 * offsets + 4 * ids:,} "
            f"bytes, found {len(content):,}"
        )
    if checksum(content[_CHECKED:]) != stored:
        raise UserError(f"{path} is damaged: its checksum does not fit its content")
    starts = np.frombuffer(content, "<u8", offsets, _HEADER.size)
    if not offsets or starts[0] or starts[-1] != ids or (np.diff(starts.astype(np.int64)) < 0).any():
        raise UserError(f"{path} is damaged: its offsets are not ascending from 0 to the number of its ids")
    return Lexicon(starts, np.frombuffer(content, "<u4", ids, _HEADER.size + 8 * offsets), first, best)


def lines(lexicon: Lexicon, src_vocab: Vocab | None = None, trg_vocab: Vocab | None = None) -> Iterator[str]:
    """The entries as text, `target source`, by source; ids where there is no vocabulary. Probabilities are not kept.

    Raises UserError when the vocabularies do not fit.
    """
    if src_vocab and len(src_vocab) != len(lexicon):
        raise UserError(f"the shortlist is for {len(lexicon)} source pieces, but the vocabulary has {len(src_vocab)}")
    if trg_vocab and len(lexicon.ids) and int(lexicon.ids.max()) >= len(trg_vocab):
        raise UserError(f"the shortlist has target id {lexicon.ids.max()}, but the vocabulary {len(trg_vocab)} pieces")
    for source in range(len(lexicon)):
        name = src_vocab.all_pieces[source] if src_vocab else source
        for target in lexicon.of(source).tolist():
            yield f"{trg_vocab.all_pieces[target] if trg_vocab else target} {name}"


def _content(lexicon: Lexicon) -> bytes:
    counts = struct.pack("<4Q", lexicon.first, lexicon.best, len(lexicon.offsets), len(lexicon.ids))
    body = counts + lexicon.offsets.astype("<u8").tobytes() + lexicon.ids.astype("<u4").tobytes()
    return struct.pack("<2Q", MAGIC, checksum(body)) + body


def checksum(content: bytes) -> int:
    """Boost's `hash_combine` over all whole words of eight bytes, as Bergamot has it."""
    whole = np.frombuffer(content, "<u8", len(content) // 8)
    value, mask = 0, (1 << 64) - 1
    for word in (whole + np.uint64(0x9E3779B9)).tolist():  # wraps around, as the sum below does
        value ^= (word + (value << 6) + (value >> 2)) & mask
    return value
