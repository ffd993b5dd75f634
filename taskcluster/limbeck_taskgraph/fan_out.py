"""What a kind's `for-each` can run over. Each gives one mapping of variables for each task.

`dataset`, `chunk` and `teacher` are also what inputs are matched by: a task for chunk 3 reads chunk 3.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from limbeck_taskgraph.continuation import continued_models, supplied, supplied_file, supplied_vocab
from limbeck_taskgraph.fingerprint import fingerprint
from pipeline.data.names import sanitize, split_augmentation

MATCHED = ("dataset", "chunk", "teacher")
# What counts for the digest besides: the state of the user's own files.
COUNTED = (*MATCHED, "fingerprint")

Variables = dict[str, Any]


def _dataset(name: str, languages: list[str]) -> Variables:
    file_name = sanitize(name)
    importer, _, rest = file_name.partition("_")
    variables: Variables = {"dataset": file_name, "dataset-name": name, "dataset-label": f"{importer}-{rest}"}
    if importer == "file":
        _, pattern = split_augmentation(name.removeprefix("file_"))
        variables["fingerprint"] = [fingerprint(pattern.replace("[LANG]", language)) for language in languages]
    return variables | ({"lang": languages[0]} if len(languages) == 1 else {})


def _pair(context: dict[str, Any]) -> list[str]:
    return [context["src"], context["trg"]]


def _rules(context: dict[str, Any], name: str) -> Variables:
    cleaning = context["experiment"]["cleaning"]
    return {"rules": {**cleaning["default"], **cleaning["datasets"].get(name, {})} or None}


def _min_doc_score(context: dict[str, Any], use: str, name: str) -> Variables:
    """The score that only HPLT's documents have; left out elsewhere, where it would change digests for nothing."""
    score = context["experiment"]["hplt-min-doc-score"][use]
    return {"min-doc-score": score if score and name.startswith("hplt_") else None}


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
        scored = _min_doc_score(context, "mono-src", name)
        yield {**_dataset(name, [context["src"]]), **_rules(context, name), **scored}


def mono_trg_datasets(context: dict[str, Any]) -> Iterator[Variables]:
    for name in dict.fromkeys(context["datasets"]["mono-trg"]):
        scored = _min_doc_score(context, "mono-trg", name)
        yield {**_dataset(name, [context["trg"]]), **_rules(context, name), **scored}


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
    "supplied-vocab": supplied_vocab,
    "supplied-priors": lambda context: supplied_file(context["continuation"]["alignments"]["priors"]),
    "supplied-shortlist": lambda context: supplied_file(context["continuation"]["shortlist"]),
    **{
        f"supplied-{role}": partial(supplied, role)
        for role in ("parallel", "backtranslations", "distillation", "devset", "mono-src", "mono-trg")
    },
    "continued-backwards": partial(continued_models, "backwards", False),
    "continued-teachers": partial(continued_models, "teacher", False),
    "continued-student": partial(continued_models, "student", False),
    "external-backwards": partial(continued_models, "backwards", True),
    "external-teachers": partial(continued_models, "teacher", True),
}


def combinations(names: list[str], context: dict[str, Any]) -> Iterator[Variables]:
    """Every combination of several `for-each` (none of them: one empty mapping)."""
    if not names:
        yield {}
        return
    for first in FOR_EACH[names[0]](context):
        for rest in combinations(names[1:], context):
            yield {**first, **rest}
