"""The page's section on data: what was read, what was kept, and which rule removed how much."""

from html import escape
from typing import Any

from pipeline.evaluate.funnel import KINDS, Passage, Stage, stage


def data_section(funnel: list[dict[str, Any]]) -> str:
    """The steps that made the training data, by kind. `funnel`: {"file": name, "stats": any JSON} per step."""
    if not funnel:
        return '<p class="none">No data was prepared in this run: the corpora were given.</p>'
    stages = [stage(step["file"], step["stats"]) for step in funnel]
    parts = ['<p class="note">Lines that every step read, kept and dropped, and why.</p>']
    for kind in KINDS:
        found = [entry for entry in stages if entry.kind == kind]
        if found:
            parts.append(f"<h3>{kind}</h3>")
            parts.extend(_card(entry) for entry in found if entry.passages)
            short = "".join(_card(entry) for entry in found if not entry.passages)
            parts.append(f'<div class="stages">{short}</div>' if short else "")
    return "".join(parts)


def _card(entry: Stage) -> str:
    title = escape(entry.title)
    if len(entry.passages) == 1 and not entry.passages[0].label:
        body = _passage(entry.passages[0], title, "h4")
    else:
        body = f"<h4>{title}</h4>" + "".join(
            _passage(passage, escape(passage.label), "h5") for passage in entry.passages
        )
    facts = "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in entry.facts)
    return f'<div class="stage">{body}{f"<dl class=facts>{facts}</dl>" if facts else ""}</div>'


def _passage(passage: Passage, title: str, level: str) -> str:
    share = f" ({_percent(passage.kept, passage.read)})" if passage.read else ""
    heading = f"<{level}>{title}<span>{passage.read:,} read → {passage.kept:,} kept{share}</span></{level}>"
    segments = "".join(
        f'<i style="width:{100 * count / max(passage.read, 1):.3f}%" title="{escape(reason)}: {count:,}"></i>'
        for reason, count in (("kept", passage.kept), *passage.lost)
    )
    largest = max((count for _, count in passage.lost), default=1)
    losses = "".join(
        f'<li><span>{escape(reason)}</span><span class="bar" aria-hidden="true">'
        f'<i style="width:{100 * count / largest:.1f}%"></i></span>'
        f"<em>{count:,} ({_percent(count, passage.read)})</em></li>"
        for reason, count in passage.lost
    )
    return (
        f'{heading}<div class="bar" role="img" aria-label="{passage.kept:,} of {passage.read:,} lines kept">{segments}'
        f"</div>{f'<ul class=losses>{losses}</ul>' if losses else ''}"
    )


def _percent(part: int, whole: int) -> str:
    if not whole:
        return "–"
    value = 100 * part / whole
    return f"{value:.1f} %" if value >= 0.05 or not part else "<0.1 %"
