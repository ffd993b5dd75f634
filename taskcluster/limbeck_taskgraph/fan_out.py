"""What a kind's `for-each` can run over. Each gives one mapping of variables for each task.

`dataset`, `chunk` and `teacher` are also what inputs are matched by: a task for chunk 3 reads chunk 3.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.data.names import sanitize

MATCHED = ("dataset", "chunk", "teacher")
# What counts for the digest besides: the state of the user's own files.
COUNTED = (*MATCHED, "fingerprint")
FINGERPRINT_BLOCK = 1 << 16

Variables = dict[str, Any]


def _dataset(name: str, languages: list[str]) -> Variables:
    file_name = sanitize(name)
    importer, _, rest = file_name.partition("_")
    variables: Variables = {"dataset": file_name, "dataset-name": name, "dataset-label": f"{importer}-{rest}"}
    if importer == "file":
        pattern = name.removeprefix("file_")
        variables["fingerprint"] = [fingerprint(pattern.replace("[LANG]", language)) for language in languages]
    return variables | ({"lang": languages[0]} if len(languages) == 1 else {})


def fingerprint(path: str) -> str | None:
    """What tells that a user's file is another one: its size and a hash of its first and last 64 KB.

    Compressed files end in a checksum of all their content. A copy or a touched file stays the same. None when the file
    is not there (the task that imports it will say so).
    """
    try:
        with Path(os.path.expandvars(path)).expanduser().open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            block = file.read(FINGERPRINT_BLOCK)
            file.seek(max(0, size - FINGERPRINT_BLOCK))
            return f"{size}-{hashlib.sha256(block + file.read()).hexdigest()[:16]}"
    except OSError:
        return None


def _pair(context: dict[str, Any]) -> list[str]:
    return [context["src"], context["trg"]]


def _rules(context: dict[str, Any], name: str) -> Variables:
    cleaning = context["experiment"]["cleaning"]
    return {"rules": {**cleaning["default"], **cleaning["datasets"].get(name, {})} or None}


def parallel_datasets(context: dict[str, Any]) -> Iterator[Variables]:
    uses: dict[str, list[str]] = {}
    for use in ("train", "devtest", "test"):
        for name in dict.fromkeys(context["datasets"][use]):
            uses.setdefault(name, []).append(f"dataset/{use}")
    for name in context["datasets"]["test"][:1]:
        uses[name].append("dataset/first-test")
    for name, types in uses.items():
        yield {**_dataset(name, _pair(context)), "uses": types}


def train_datasets(context: dict[str, Any]) -> Iterator[Variables]:
    for name in dict.fromkeys(context["datasets"]["train"]):
        yield {**_dataset(name, _pair(context)), **_rules(context, name)}


def test_datasets(context: dict[str, Any]) -> Iterator[Variables]:
    for number, name in enumerate(dict.fromkeys(context["datasets"]["test"])):
        yield {**_dataset(name, _pair(context)), "samples": ["evaluation/samples"] if number == 0 else []}


def mono_src_datasets(context: dict[str, Any]) -> Iterator[Variables]:
    for name in dict.fromkeys(context["datasets"]["mono-src"]):
        yield {**_dataset(name, [context["src"]]), **_rules(context, name)}


def mono_trg_datasets(context: dict[str, Any]) -> Iterator[Variables]:
    for name in dict.fromkeys(context["datasets"]["mono-trg"]):
        yield {**_dataset(name, [context["trg"]]), **_rules(context, name)}


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
        yield {}
        return
    for first in FOR_EACH[names[0]](context):
        for rest in combinations(names[1:], context):
            yield {**first, **rest}
