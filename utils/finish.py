"""What a person sees when a run has ended well: the figures, a few translations, and where everything lies."""

from collections.abc import Mapping
from typing import Any

from limbeck_engines.base import Engine
from limbeck_engines.taskcluster_states import ACTION_LABEL
from pipeline.evaluate.table import summary_table
from utils.places import Place, folder_of, read_json_at

SAMPLES = 4


def finish_run(engine: Engine, tasks: Mapping[str, str]) -> int:
    """Print the closing lines of a run from its tasks (label -> task id); returns exit code 0."""
    results = {label: task_id for label, task_id in sorted(tasks.items()) if label != ACTION_LABEL}
    report = _artifact(engine, results, "report-", "report.html")
    export = _artifact(engine, results, "export-", "export")
    browser = _artifact(engine, results, "export-browser-", "browser")
    if report:
        content = read_json_at(engine, report[0], "public/build/report.json")
        print("\n" + summary_table(sorted(content["metrics"], key=_order)))
        # From short to long sentences.
        samples = content["samples"]
        for sample in samples[:: max(1, len(samples) // SAMPLES)][:SAMPLES]:
            print(f"\n  source       {sample['source']}\n  reference    {sample['reference']}")
            for name, text in sorted(
                sample["hypotheses"].items(), key=lambda item: _order({"name": item[0], "dataset": ""})
            ):
                print(f"  {name:<12} {text}")
    print()
    if export:
        fetch = f"limbeck artifacts {export[0]} --download ." if isinstance(export[1], str) else None
        print(f"model   {export[1]}\n        {fetch or f'limbeck translate {export[1]}'}")
    if browser:
        print(f"browser {browser[1]}")
    if report:
        print(f"report  {report[1]}")
    if not export and not report:
        for label, task_id in results.items():
            if engine.artifacts(task_id):
                print(f"  {label}  {folder_of(engine, task_id)}")
    return 0


def handed_over(engine: Engine, group_id: str) -> int:
    """Say how to watch a run that goes on by itself; returns exit code 0."""
    group = engine.store.group(group_id)
    print(f"\n{group.name} ({group_id}) is handed over to {group.engine} and goes on by itself")
    if group.url:
        print(f"page    {group.url}")
    print(f"watch   limbeck status {group_id}   (limbeck logs TASK -f, limbeck cancel {group_id})")
    return 0


def _order(metrics: Mapping[str, Any]) -> tuple[int, str, str]:
    """Teachers first, then the students from the largest on, backward models last."""
    roles = ("teacher", "student", "backward")
    name = str(metrics["name"])
    role = next((number for number, role in enumerate(roles) if name.startswith(role)), len(roles))
    return role, name, str(metrics["dataset"])


def _artifact(engine: Engine, tasks: Mapping[str, str], label_prefix: str, name: str) -> tuple[str, Place] | None:
    """The first task with such a label that has the artifact of this name, a file or a folder, and where that is."""
    for label, task_id in tasks.items():
        if label.startswith(label_prefix) and (place := folder_of(engine, task_id, name)) is not None:
            return task_id, place
    return None
