"""The parameters that taskgraph renders from: its own, plus those of this project.

`training_config` is the training config's values; empty, there is nothing to train and the graph is empty.
`engine` says for what tasks are rendered: `local` (also what other engines than Taskcluster read) or `taskcluster`.
`existing_digests` are the digests of those `existing_tasks` that mean something else than the config does.
"""

from collections.abc import Mapping
from typing import Any, Literal

from taskgraph.parameters import extend_parameters_schema
from taskgraph.util.schema import Schema

from limbeck_taskgraph.continuation import derived_of_continuation, effective_datasets, model_file
from limbeck_taskgraph.target_tasks import METHOD
from pipeline.train.distillation import parse_distillation

SHORTLIST_KEPT = 100  # candidates of a source piece in the text shortlist
_PUBLISHED = ("export", "browser", "report", "student", "teacher", "backwards", "vocab")


def register() -> None:
    """Add the project's own parameters to those that taskgraph accepts."""
    schema = Schema.from_dict(
        {
            "training_config": dict[str, object],
            "engine": Literal["local", "taskcluster"],
            "existing_digests": dict[str, str],
        },
        name="LimbeckParameters",
    )
    extend_parameters_schema(schema, lambda repo_root=None: own_parameters("taskcluster"))


def own_parameters(engine: str) -> dict[str, Any]:
    """The project's parameters when nothing is to be trained."""
    return {"training_config": {}, "engine": engine, "existing_digests": {}}


def decision_parameters(graph_config: Any, parameters: dict[str, Any]) -> None:
    """taskgraph's entry point: complete what `taskgraph decision` knows from its command line."""
    parameters.update(own_parameters("taskcluster"))
    parameters["target_tasks_method"] = METHOD
    # "hg" only keeps taskgraph from demanding a GitHub URL and from adding GitHub's routes.
    parameters["repository_type"] = "hg"
    # taskgraph completes what is no address with a host of Mozilla's.
    parameters["owner"] = parameters["owner"].replace("@noreply.mozilla.org", "@localhost.invalid")


def template_context(training_config: dict[str, Any]) -> dict[str, Any]:
    """What templates in kind.yml may name: the training config's keys, `src`, `trg`, and what is derived from them."""
    experiment = training_config["experiment"]
    distillation = _derived_of_distillation(
        experiment["distillation"], training_config["marian-args"]["training-student"]
    )
    continuation = derived_of_continuation(training_config, distillation["student-meets-teacher"])
    return {
        **training_config,
        "datasets": effective_datasets(training_config),
        "src": experiment["src"],
        "trg": experiment["trg"],
        # Of the makers of models only those that bring models of elsewhere have another one.
        "model-file": model_file(training_config),
        "derived": {
            **distillation,
            **_derived_augmentation(experiment),
            **continuation,
            "distils": distillation["reads-distilled"] and continuation["distils"],
            "shortlist-reads-distilled": distillation["reads-distilled"] and not continuation["shortlist-of-original"],
            "shortlist-reads-original": distillation["reads-original-alone"] or continuation["shortlist-of-original"],
            "several-teachers": experiment["teacher-ensemble"] > 1,
            "decoding-student": {"beam-size": 1},
            "uploads": _uploads(training_config),
            "compares-quantization": {
                "ctranslate2": experiment["quantization-target"] == "ctranslate2",
                "browser": experiment["quantization-target"] == "browser" and experiment["evaluation"]["browser"],
            },
            "evaluation-shortlist": {
                size: count if experiment["evaluation"]["shortlist"] else None
                for size, count in experiment["shortlist"].items()
            },
            # More of them are kept where more are wanted.
            "shortlist-kept": max(SHORTLIST_KEPT, experiment["shortlist"]["best"]),
            "student-has-ctranslate2": not _is_recurrent(training_config["marian-args"]["training-student"]),
            "wandb-project": f"{experiment['src']}-{experiment['trg']}"
            if training_config["wandb-publication"]
            else None,
            "wandb-run": experiment["name"],
        },
    }


def _derived_of_distillation(section: Mapping[str, Any], student_options: Mapping[str, Any]) -> dict[str, Any]:
    """What the student is told of its distillation, and what it needs for it."""
    given, initialise = distillation_values(section)
    distillation = parse_distillation(given)
    stores = distillation.top_k > 0
    return {
        "distillation": None if given == {"recipe": "sequence"} else given,
        "initialise": initialise or None,
        "student-meets-teacher": distillation.needs_teacher or bool(initialise),
        "reads-distilled": "distilled" in distillation.corpora,
        "reads-original": "original" in distillation.corpora,
        "reads-original-alone": distillation.corpora == ("original",),
        "top-k": distillation.top_k,
        "top-k-distilled": stores and "distilled" in distillation.corpora,
        "top-k-original": stores and "original" in distillation.corpora,
        "student-max-length": student_options.get("max-length"),
    }


def _uploads(training_config: Mapping[str, Any]) -> dict[str, Any]:
    """Where results are published, and each of those that are."""
    wanted, experiment = training_config["upload-artifacts"], training_config["experiment"]
    if not wanted["url"]:
        return {}
    url = f"{wanted['url'].rstrip('/')}/{experiment['src']}-{experiment['trg']}/{experiment['name']}"
    return {"url": url, **{name: name in wanted["artifacts"] for name in _PUBLISHED}}


def _is_recurrent(options: Mapping[str, Any]) -> bool:
    """Whether a model has an SSRU decoder, by the options of its training."""
    return bool(options.get("transformer-decoder-autoreg") == "rnn")


def _derived_augmentation(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """What is done to the text of teachers and students. Stored distributions belong to sentences as they stand."""
    given, top_k = experiment["augmentation"], experiment["distillation"]["top-k"]
    return {
        "teacher-augmentation": "defaults" if given is None else given,
        "student-augmentation": ("none" if top_k else "defaults") if given is None else given,
    }


def distillation_values(section: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is given of `experiment.distillation`, and of its `initialise`, without the keys that are not."""
    given = {key: value for key, value in section.items() if value is not None}
    initialise = given.pop("initialise", {})
    return given, {key: value for key, value in initialise.items() if value is not None}
