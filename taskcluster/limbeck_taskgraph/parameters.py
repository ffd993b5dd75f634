"""The parameters that taskgraph renders from: its own, plus the training config."""

from typing import Any

from taskgraph.parameters import extend_parameters_schema
from taskgraph.util.schema import Schema

DEFAULT_FILTER_FRACTION = 0.05


def register() -> None:
    """Add `training_config` to what taskgraph accepts as parameters."""
    schema = Schema.from_dict({"training_config": dict[str, object]}, name="LimbeckParameters")
    extend_parameters_schema(schema, lambda repo_root=None: {"training_config": {}})


def template_context(training_config: dict[str, Any]) -> dict[str, Any]:
    """What templates in kind.yml may name: the training config's keys, `src`, `trg`, and what is derived from them."""
    experiment, datasets = training_config["experiment"], training_config["datasets"]
    fraction = experiment["distillation-filter-fraction"]
    if fraction is None:
        fraction = DEFAULT_FILTER_FRACTION if datasets["mono-trg"] else 0
    return {
        **training_config,
        "src": experiment["src"],
        "trg": experiment["trg"],
        "derived": {
            "filter-fraction": fraction,
            "backward-model": bool(fraction or datasets["mono-trg"] or "backward" in training_config["target-stage"]),
            "several-teachers": experiment["teacher-ensemble"] > 1,
            "decoding-student": {"beam-size": 1},
            "wandb-project": f"{experiment['src']}-{experiment['trg']}" if training_config["wandb-publication"] else None,
            "wandb-run": experiment["name"],
        },
    }
