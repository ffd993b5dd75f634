"""Markdown of model cards: tables, and numbers as people write them."""

from collections.abc import Sequence


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    """A table whose first `texts` columns are text; the others are numbers, flush right."""
    lines = [titles, ["---"] * texts + ["---:"] * (len(titles) - texts), *rows]
    head, rule, *body = (
        "| " + " | ".join(cells if number == 1 else map(escaped, cells)) + " |" for number, cells in enumerate(lines)
    )
    return "\n".join([head, rule, *body])


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*")


def megabytes(size: float) -> str:
    """Bytes in decimal megabytes: 43.9 MB."""
    return f"{size / 1e6:,.1f} MB"


def signed(points: float, digits: int) -> str:
    """A difference with its sign: +1.5, −0.3."""
    return f"{points:+.{digits}f}".replace("-", "−")
