"""The page's section on time: how long the devices worked for every stage."""

from pipeline.evaluate.page_table import cell, name_cell, sortable_table


def time_section(durations: dict[str, float]) -> str:
    """A table of stages by falling time. `durations`: seconds of all tasks of a stage together."""
    if not durations:
        return '<p class="none">The times of this run’s tasks were not handed to this report.</p>'
    total = sum(durations.values())
    rows = [
        name_cell(stage)
        + cell(seconds, _hours(seconds))
        + cell(seconds / total if total else 0, f"{100 * seconds / total:.1f} %" if total else "–")
        for stage, seconds in sorted(durations.items(), key=lambda item: -item[1])
    ]
    note = f"{_hours(total)} in all, of tasks beside each other as if they had run one after another."
    return f'<p class="note">{note}</p>{sortable_table("Time of stages", ("Stage", "Device time", "Share"), rows)}'


def _hours(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
