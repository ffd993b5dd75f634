"""What a kind's `for-each` can run over. Each gives one mapping of variables for each task.

`dataset`, `chunk` and `teacher` are also what inputs are matched by: a task for chunk 3 reads chunk 3.
`outputs` holds artifact types that only this task of the kind makes.
"""

from collections.abc import Callable, Iterator
from typing import Any

from pipeline.data.names import sanitize

MATCHED = ("dataset", "chunk", "teacher")

Variables = dict[str, Any]


def _dataset(name: str, language: str | None = None) -> Variables:
    file_name = sanitize(name)
    importer, _, rest = file_name.partition("_")
    variables = {"dataset": file_name, "dataset-name": name, "dataset-label": f"{importer}-{rest}"}
    return variables | ({"lang": language} if language else {})


def _rules(context: dict[str, Any], name: str) -> Variables:
    cleaning = context["experiment"]["cleaning"]
    return {"rules": {**cleaning["default"], **cleaning["datasets"].get(name, {})} or None}


def parallel_datasets(context: dict[str, Any]) -> Iterator[Variables]:
    uses: dict[str, list[str]] = {}
    for use in ("train", "devtest", "test"):
        for name in context["datasets"][use]:
            uses.setdefault(name, []).append(f"dataset/{use}")
    for name, types in uses.items():
        yield {**_dataset(name), "outputs": list(dict.fromkeys(types))}


def train_datasets(context: dict[str, Any]) -> Iterator[Variables]:
    for name in dict.fromkeys(context["datasets"]["train"]):
        yield {**_dataset(name), **_rules(context, name)}


def test_datasets(context: dict[str, Any]) -> Iterator[Variables]:
    for number, name in enumerate(dict.fromkeys(context["datasets"]["test"])):
        yield {**_dataset(name), "outputs": ["evaluation/first-test-set"] if number == 0 else []}


def mono_src_datasets(context: dict[str, Any]) -> Iterator[Variables]:
    for name in dict.fromkeys(context["datasets"]["mono-src"]):
        yield {**_dataset(name, context["src"]), **_rules(context, name)}


def mono_trg_datasets(context: dict[str, Any]) -> Iterator[Variables]:
    for name in dict.fromkeys(context["datasets"]["mono-trg"]):
        yield {**_dataset(name, context["trg"]), **_rules(context, name)}


def chunks(context: dict[str, Any]) -> Iterator[Variables]:
    count = context["taskcluster"]["split-chunks"]
    for number in range(1, count + 1):
        yield {"chunk": number, "chunks": count}


def teachers(context: dict[str, Any]) -> Iterator[Variables]:
    for number in range(1, context["experiment"]["teacher-ensemble"] + 1):
        yield {"teacher": number}


FOR_EACH: dict[str, Callable[[dict[str, Any]], Iterator[Variables]]] = {
    "parallel-datasets": parallel_datasets,
    "train-datasets": train_datasets,
    "test-datasets": test_datasets,
    "mono-src-datasets": mono_src_datasets,
    "mono-trg-datasets": mono_trg_datasets,
    "chunks": chunks,
    "teachers": teachers,
}


def combinations(names: list[str], context: dict[str, Any]) -> Iterator[Variables]:
    """Every combination of several `for-each` (none of them: one empty mapping)."""
    if not names:
        yield {"outputs": []}
        return
    for first in FOR_EACH[names[0]](context):
        for rest in combinations(names[1:], context):
            yield {**rest, **first, "outputs": [*first.get("outputs", []), *rest["outputs"]]}
