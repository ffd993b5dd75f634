"""What every importer gives: rows of text, how many there are, and where they came from."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Source:
    """An opened data set. `rows` can be read once; a row holds one sentence per language that was asked for."""

    rows: Iterator[tuple[str, ...]]
    total: int | None  # rows that `rows` will yield; None where nobody knows, and the rows are in random order
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> messages the importer left out
    origin: dict[str, Any] = field(default_factory=dict)  # version, checksums, files: for the statistics
