"""A kind's stages -> tasks: fan-out, typed inputs, parameters, command and digest.

A kind.yml of this project says for each of its tasks what it reads (`inputs`: artifact types), what it makes
(`outputs`), which step of the pipeline it runs, where that step's files are (`arguments`) and which values change its
result (`parameters`). Dependencies, fetches, the command line and the digest are derived here.
"""

import json
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from taskgraph.transforms.base import TransformConfig, TransformSequence
from taskgraph.util.schema import Schema

from limbeck_taskgraph.catalogue import load_catalogue
from limbeck_taskgraph.digest import task_digest
from limbeck_taskgraph.fan_out import COUNTED, FOR_EACH, MATCHED, combinations
from limbeck_taskgraph.parameters import template_context
from limbeck_taskgraph.templates import look_up, references, render
from limbeck_taskgraph.worker_payload import on_taskcluster

PREFIX = "public/build"
LOCAL_WORKER = {"implementation": "generic-worker", "os": "linux"}
Stage = dict[str, Any]


class RunSchema(Schema):
    """The step that a task runs, `python3 -m <module>`."""

    module: str
    # Flags that say where files are; they are not part of the digest. A list of texts is one flag with several
    # values, a list of lists the flag several times. One that names an input nobody makes is left out; one that
    # names an input of several tasks is given once for each.
    arguments: dict[str, str | list[str | list[str]]] = {}  # noqa: RUF012 (msgspec copies defaults)
    # Flags whose values change the result; they are.
    parameters: dict[str, str | int | float | bool] = {}  # noqa: RUF012
    # Variables that do not change the result; one whose template is empty is left out.
    environment: dict[str, str] = {}  # noqa: RUF012


class StageSchema(Schema):
    """One entry of a kind's `tasks`. Its key is the label without the kind's name."""

    name: str
    description: str
    # Raised by hand when the stage's results change.
    version: int
    worker_type: str
    max_run_time: int = 86400
    retry_exit_status: list[int] = []  # noqa: RUF012
    # What `target-stage` calls it; the kind's name if absent.
    stage: str | None = None
    # One task for each combination of these (see fan_out.py).
    for_each: list[str] = []  # noqa: RUF012
    # A dotted name; there is no task when its value is empty, false or 0.
    only_if: str | None = None
    # More variables for templates.
    variables: dict[str, str] = {}  # noqa: RUF012
    # Name in templates -> artifact type; "?" at its end: goes without when nothing makes it.
    inputs: dict[str, str] = {}  # noqa: RUF012
    # Name of an input -> a dotted name; the stage goes without that input when the value is empty, false or 0.
    inputs_only_if: dict[str, str] = {}  # noqa: RUF012
    # Artifact types; a template may stand for a list of them.
    outputs: list[str] = []  # noqa: RUF012
    run: RunSchema | None = None
    task_from: str | None = None


transforms = TransformSequence()
transforms.add_validate(StageSchema)


@transforms.add
def fan_out(config: TransformConfig, stages: Iterator[Stage]) -> Iterator[Stage]:
    """One stage for each combination of what it runs over, with its template context. None without a config."""
    if not config.params["training_config"]:
        return
    context = template_context(config.params["training_config"])
    for stage in stages:
        for name in stage.get("for-each", []):
            if name not in FOR_EACH:
                raise ValueError(f"kind {config.kind}: for-each: unknown {name!r}; known: {', '.join(FOR_EACH)}")
        if stage.get("only-if") and not look_up(stage["only-if"], context):
            continue
        for variables in combinations(stage.get("for-each", []), context):
            own = {key: render(value, {**context, **variables}) for key, value in stage.get("variables", {}).items()}
            full = {**context, **variables, **own}
            if clash := full.keys() & stage.get("inputs", {}).keys():
                raise ValueError(f"kind {config.kind}: an input is named like a variable: {', '.join(clash)}")
            yield {
                **msgspec.json.decode(msgspec.json.encode(stage)),
                "label": f"{config.kind}-{render(stage['name'], full)}",
                "context": full,
                "variables": {key: variables[key] for key in COUNTED if key in variables} | own,
                "outputs": _flatten(render(stage.get("outputs", []), full)),
            }


def _flatten(values: list[Any]) -> list[str]:
    return [name for value in values for name in (value if isinstance(value, list) else [value])]


@transforms.add
def resolve_inputs(config: TransformConfig, stages: Iterator[Stage]) -> Iterator[Stage]:
    """Find the tasks that make each input. A stage one of whose inputs nobody makes is not there."""
    catalogue = load_catalogue()
    upstream = Upstream(config.kind_dependencies_tasks.values())
    for stage in stages:
        resolved: dict[str, list[Any]] = {}
        for name, wanted in stage.get("inputs", {}).items():
            condition = stage.get("inputs-only-if", {}).get(name)
            if condition and not look_up(condition, stage["context"]):
                resolved[name] = []
                continue
            makers = _makers(config, upstream, catalogue[wanted.rstrip("?")], stage["variables"])
            if not makers and not wanted.endswith("?"):
                break
            resolved[name] = makers
        else:
            yield {**stage, "resolved": resolved}


class Upstream:
    """The tasks that a kind may read of, by what they make: with thousands of chunks none looks at all others."""

    def __init__(self, tasks: Iterable[Any]) -> None:
        self._tasks = list(tasks)
        # Output, variable -> value -> places in the list of tasks.
        self._places: dict[tuple[str, str | None], dict[Any, list[int]]] = {}

    def makers(self, output: str, variables: dict[str, Any]) -> list[Any]:
        """Those that make an output for the same data set, chunk and teacher, or for all of them; in their order."""
        matched = [key for key in MATCHED if key in variables]
        first = matched[0] if matched else None
        places = self._by_value(output, first)
        own = places.get(variables[first], []) + places.get(None, []) if first else places.get(None, [])
        return [
            task
            for task in (self._tasks[place] for place in sorted(own))
            if all(task.attributes["variables"].get(key, variables[key]) == variables[key] for key in matched)
        ]

    def _by_value(self, output: str, variable: str | None) -> dict[Any, list[int]]:
        if (output, variable) not in self._places:
            places: dict[Any, list[int]] = {}
            for place, task in enumerate(self._tasks):
                if output in task.attributes["outputs"]:
                    value = task.attributes["variables"].get(variable) if variable else None
                    places.setdefault(value, []).append(place)
            self._places[output, variable] = places
        return self._places[output, variable]


def _makers(config: TransformConfig, upstream: Upstream, wanted: Any, variables: dict[str, Any]) -> list[Any]:
    missing = [kind for kind in wanted.made_by if kind not in config.config.get("kind-dependencies", [])]
    if missing:
        raise ValueError(
            f"kind {config.kind} reads {wanted.name}, made by {', '.join(missing)}: add it to its kind-dependencies"
        )
    found = upstream.makers(wanted.name, variables)
    if wanted.first_of:
        first = next((kind for kind in wanted.made_by if any(task.kind == kind for task in found)), None)
        found = [task for task in found if task.kind == first]
    # Kinds are loaded in an order that changes from process to process; a digest must not.
    return sorted(
        found,
        key=lambda task: (
            wanted.made_by.index(task.kind),
            [task.attributes["variables"].get(key, 0) for key in ("teacher", "chunk")],
        ),
    )


@transforms.add
def add_digest(config: TransformConfig, stages: Iterator[Stage]) -> Iterator[Stage]:
    """Render the parameters and sum up what the task means."""
    for stage in stages:
        context = stage["context"]
        rendered = render(stage.get("run", {}).get("parameters", {}), context)
        parameters = {flag: value for flag, value in rendered.items() if not _is_absent(value)}
        meaning = {
            "stage": config.kind,
            "version": stage["version"],
            "languages": [context["src"], context["trg"]],
            "variables": stage["variables"],
            "parameters": parameters,
            "inputs": {
                name: {task.label: task.attributes["digest"] for task in makers}
                for name, makers in stage["resolved"].items()
                if makers
            },
        }
        # What a person named to stand for the stage may mean something else than the config.
        digest = config.params["existing_digests"].get(stage["label"]) or task_digest(meaning)
        yield {**stage, "parameters": parameters, "meaning": meaning, "digest": digest}


def _is_absent(value: Any) -> bool:
    """Whether a parameter goes without its flag: nothing given, switched off, or an empty mapping or list."""
    return value is None or value is False or value == {} or value == []


@transforms.add
def make_task(config: TransformConfig, stages: Iterator[Stage]) -> Iterator[dict[str, Any]]:
    """A description for taskgraph's own task transforms."""
    catalogue = load_catalogue()
    for stage in stages:
        for output in stage["outputs"]:
            if config.kind not in catalogue[output].made_by:
                raise ValueError(f"kind {config.kind} makes {output}: say so under its made-by in artifacts.yml")
        # An existing task stands for the stage: nothing that only this stage would need is made.
        is_there = stage["label"] in config.params["existing_tasks"]
        fetches = [] if is_there else _fetches(stage)
        task = {
            "label": stage["label"],
            "description": render(stage["description"], stage["context"]),
            "worker-type": stage["worker-type"],
            "dependencies": {fetch["label"]: fetch["label"] for fetch in fetches},
            "attributes": {
                "stage": stage.get("stage") or config.kind,
                "outputs": stage["outputs"],
                "variables": stage["variables"],
                "digest": stage["digest"],
                "worker-type": stage["worker-type"],
                # Addresses of what the task fetches from outside.
                "external": stage["context"].get("external", []),
                # What a person calls its parameters and inputs, for the plan.
                "words": _words(stage),
                "src_locale": stage["context"]["src"],
                "trg_locale": stage["context"]["trg"],
            },
            "extra": {"limbeck": {"digest": stage["digest"], **stage["meaning"]}},
        }
        if stage.get("run"):
            task["worker"] = _worker(stage, fetches)
        if config.params["engine"] == "taskcluster":
            task = on_taskcluster(config, task, config.params["training_config"])
        elif "worker" in task:
            # Whatever the deployment's workers are: the local engine runs a list of commands.
            task["worker"] |= LOCAL_WORKER
            task["tags"] = {"worker-implementation": LOCAL_WORKER["implementation"], "os": LOCAL_WORKER["os"]}
        yield task


def _words(stage: Stage) -> dict[str, str]:
    """What a person calls the stage's parameters (the config's keys) and its inputs (artifact types)."""
    parameters = stage.get("run", {}).get("parameters", {})
    keys = {
        flag: names[0].rpartition(".")[2] for flag, template in parameters.items() if (names := references(template))
    }
    return {**keys, **{name: wanted.rstrip("?") for name, wanted in stage.get("inputs", {}).items()}}


def _fetches(stage: Stage) -> list[dict[str, str]]:
    """Every file of every input, each into a folder named like the task that makes it."""
    catalogue = load_catalogue()
    fetches: dict[tuple[str, str], dict[str, str]] = {}
    for name, makers in stage["resolved"].items():
        artifact_type = catalogue[stage["inputs"][name].rstrip("?")]
        for task in makers:
            for template in artifact_type.files.values():
                file = render(template, _maker_context(stage, task))
                fetches[task.label, file] = {"label": task.label, "file": file}
    return list(fetches.values())


def _maker_context(stage: Stage, task: Any) -> dict[str, Any]:
    return {**stage["context"], **task.attributes["variables"]}


def _worker(stage: Stage, fetches: list[dict[str, str]]) -> dict[str, Any]:
    references = [
        {
            "artifact": f"{PREFIX}/{fetch['file']}",
            "task": f"<{fetch['label']}>",
            "dest": fetch["label"],
            "extract": False,
        }
        for fetch in fetches
    ]
    return {
        "command": [["bash", "-c", _command(stage)]],
        "env": {
            "MOZ_FETCHES": {"task-reference": json.dumps(references, sort_keys=True)},
            # Threads that wait for each other must not spin: with a busy machine a step takes many times as long.
            "OMP_WAIT_POLICY": "PASSIVE",
            **_environment(stage),
        },
        "max-run-time": stage.get("max-run-time", 86400),
        "retry-exit-status": sorted({75, *stage.get("retry-exit-status", [])}),
        "artifacts": [{"type": "directory", "path": "artifacts", "name": PREFIX}],
    }


def _environment(stage: Stage) -> dict[str, str]:
    rendered = render(stage["run"].get("environment", {}), stage["context"])
    return {name: str(value) for name, value in rendered.items() if not _is_absent(value)}


def _command(stage: Stage) -> str:
    words = ["exec python3 -m", stage["run"]["module"]]
    for flag, template in stage["run"].get("arguments", {}).items():
        occurrences = template if isinstance(template, list) and isinstance(template[0], list) else [template]
        for occurrence in occurrences:
            parts = occurrence if isinstance(occurrence, list) else [occurrence]
            for values in _argument_values(stage, parts):
                words += [f"--{flag}", *map(_quote_path, values)]
    for flag, value in stage["parameters"].items():
        words.append(f"--{flag}")
        if isinstance(value, dict | list):
            words.append(shlex.quote(json.dumps(value, ensure_ascii=False, sort_keys=True)))
        elif value is not True:
            words.append(shlex.quote(str(value)))
    return " ".join(words)


def _argument_values(stage: Stage, parts: list[str]) -> Iterator[list[str]]:
    """The values of a flag: once, or once for each task that makes the input it names; not at all without one."""
    inputs = dict.fromkeys(name.split(".")[0] for name in references(parts))
    makers = {name: stage["resolved"][name] for name in inputs if name in stage["resolved"]}
    if not all(makers.values()):
        return
    several = [name for name, tasks in makers.items() if len(tasks) > 1]
    if len(several) > 1:
        raise ValueError(f"{stage['label']}: an argument names several inputs of several tasks: {', '.join(several)}")
    for number in range(len(makers[several[0]]) if several else 1):
        context = {**stage["context"], "artifacts": "$TASK_WORKDIR/artifacts"}
        for name, tasks in makers.items():
            context[name] = _paths(stage, name, tasks[number if name in several else 0])
        yield [str(value) for value in render(parts, context)]


def _paths(stage: Stage, name: str, task: Any) -> dict[str, Any]:
    """What a template can say of an input: the path of each of its files by role, and its maker's variables."""
    files = load_catalogue()[stage["inputs"][name].rstrip("?")].files
    context = _maker_context(stage, task)
    paths = {role: f"$MOZ_FETCHES_DIR/{task.label}/{render(file, context)}" for role, file in files.items()}
    return {**task.attributes["variables"], **paths}


def _quote_path(value: str) -> str:
    """Quote for the shell, but leave the folders' variables to it."""
    for variable in (
        "$MOZ_FETCHES_DIR",
        "$TASK_WORKDIR",
        "$LIMBECK_CHECKPOINTS",
        "$LIMBECK_DURATIONS",
        "$LIMBECK_CONFIG",
    ):
        if value.startswith(variable):
            return f'"{variable}"{shlex.quote(value[len(variable) :]) if value != variable else ""}'
    return shlex.quote(value)
