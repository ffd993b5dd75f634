"""What a person sees when a run has ended well: the figures, a few translations, and where everything lies."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck_engines.base import Engine
from pipeline.evaluate.table import summary_table
from utils.common import artifact_folder

SAMPLES = 4


def finish_run(engine: Engine, tasks: Mapping[str, str]) -> int:
    """Print the closing lines of a run from its tasks (label -> task id); returns exit code 0."""
    report = _artifact(engine, tasks, "report-", "report.html")
    export = _artifact(engine, tasks, "export-", "export")
    browser = _artifact(engine, tasks, "export-browser-", "browser")
    if report:
        content = json.loads(report.with_name("report.json").read_text(encoding="utf-8"))
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
        print(f"model   {export}\n        limbeck translate {export}")
    if browser:
        print(f"browser {browser}")
    if report:
        print(f"report  {report}")
    if not export and not report:
        for label, task_id in sorted(tasks.items()):
            if engine.artifacts(task_id):
                print(f"  {label}  {artifact_folder(engine, task_id)}")
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


def _artifact(engine: Engine, tasks: Mapping[str, str], label_prefix: str, name: str) -> Path | None:
    """The artifact of this name that a task with such a label has."""
    for label, task_id in sorted(tasks.items()):
        if label.startswith(label_prefix) and (path := artifact_folder(engine, task_id) / name).exists():
            return path
    return None
