"""Tables of the page: a click on a heading sorts them by it."""

from collections.abc import Sequence
from html import escape


def sortable_table(caption: str, titles: Sequence[str], rows: Sequence[str]) -> str:
    """A table with a name for screen readers; `rows` are made of `name_cell` and `cell`, `titles` are text."""
    head = "".join(f'<th scope="col"><button type="button">{escape(title)}</button></th>' for title in titles)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def name_cell(name: str, color: int | None = None, note: str = "") -> str:
    """The first cell of a row, with the colour that a model has on the page."""
    key = "" if color is None else f'<span class="key c{color}"></span>'
    small = f' <small class="note">{escape(note)}</small>' if note else ""
    return f'<th scope="row" data-value="{escape(name)}">{key}{escape(name)}{small}</th>'


def cell(value: float | str | None, shown: str = "", small: str = "") -> str:
    """A cell that sorts by `value`; None is shown as a dash, and sorted last."""
    if value is None:
        return '<td data-value=""><span class="none">–</span></td>'
    note = f"<small>{escape(small)}</small>" if small else ""
    return f'<td data-value="{escape(str(value))}">{escape(shown or str(value))}{note}</td>'


def signed(points: float, digits: int = 1) -> str:
    """A difference as people write it: +1.5, −0.3."""
    return f"{points:+.{digits}f}".replace("-", "−")


def factor(ratio: float | None, word: str) -> str:
    """20× faster; nothing where there is no difference to speak of."""
    if ratio is None or abs(ratio - 1) < 0.005:
        return ""
    return f"{ratio:.0f}× {word}" if ratio >= 9.95 else f"{ratio:.2g}× {word}"


def human_bytes(size: float) -> str:
    """Bytes in decimal units: 43.9 MB."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.1f} {unit}"
    return f"{size:.0f} B"


def human_count(count: float) -> str:
    """A large number in short: 60.5 M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count:.0f}"
