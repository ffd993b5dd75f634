"""The action `evaluate`: a model that is there already and test sets in, its scores out."""

from typing import Any, Literal

from pydantic import Field, ValidationError
from taskgraph.actions.registry import register_callback_action

from limbeck_taskgraph.actions.training_run import render, run_parameters, start_run
from limbeck_taskgraph.continuation_config import ContinuedModel, UriPair
from limbeck_taskgraph.section import Section
from limbeck_taskgraph.training_config import Dataset, Evaluation, Locale, TrainingConfig
from pipeline.common.errors import UserError

# What evaluating a given model may need besides the evaluation itself.
_PREPARATION = ("dataset", "continuation-model", "continuation-vocab", "evaluate")


class EvaluationRequest(Section):
    """The action's input."""

    name: str = Field(description="what the run is called")
    src: Locale = Field(description="source language")
    trg: Locale = Field(description="target language")
    role: Literal["backwards", "teacher", "student"] = Field(description="what the model is; decides how it decodes")
    model: ContinuedModel = Field(description="the model, with mode: use")
    vocab: UriPair | None = Field(default=None, description="its vocabularies, unless it brings a tokenizer")
    test: list[Dataset] = Field(min_length=1, description="test sets, as under datasets.test")
    evaluation: Evaluation = Field(default_factory=Evaluation)


@register_callback_action(
    name="evaluate",
    title="Evaluate a model",
    symbol="eval",
    description="Evaluate a model on test sets; nothing is trained.",
    order=2,
    schema=lambda graph_config: EvaluationRequest.model_json_schema(by_alias=True),
)
def evaluate_action(parameters: Any, graph_config: Any, input: Any, task_group_id: Any, task_id: Any) -> None:
    """taskgraph's callback. Raises UserError when the request is wrong or would train something."""
    config = evaluation_config(input)
    graph = render(graph_config, run_parameters(parameters, config))
    if others := sorted({task.kind for task in graph} - set(_PREPARATION)):
        raise UserError(
            f"input: evaluating this {config.target_stage.removeprefix('evaluate-')} needs {', '.join(others)}: give "
            "its vocab as well, or use the action train"
        )
    start_run(parameters, graph_config, config)


def evaluation_config(values: Any) -> TrainingConfig:
    """The training config that means the request. It has nothing to train with, which a config to train must have."""
    try:
        request = EvaluationRequest.model_validate(values)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise UserError(f"input: {'; '.join(problems)}") from error
    if request.model.mode != "use":
        raise UserError(f"input: model.mode: found {request.model.mode!r}; allowed: 'use', as nothing is trained")
    given = request.model_dump(mode="json", by_alias=True, exclude_none=True)
    continuation = {"models": {request.role: given["model"]}} | ({"vocab": given["vocab"]} if request.vocab else {})
    return TrainingConfig.model_validate(
        {
            "experiment": {**{key: given[key] for key in ("name", "src", "trg")}, "evaluation": given["evaluation"]},
            "datasets": {"test": given["test"]},
            "continuation": continuation,
            "target-stage": f"evaluate-{request.role}",
        }
    )
