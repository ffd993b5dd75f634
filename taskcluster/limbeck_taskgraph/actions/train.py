"""The action `train`: a training config in, the run's tasks out."""

from typing import Any

import yaml
from taskgraph.actions.registry import register_callback_action

from limbeck_taskgraph.actions.training_run import start_run
from limbeck_taskgraph.config_file import parse_training_config
from limbeck_taskgraph.training_config import TrainingConfig


@register_callback_action(
    name="train",
    title="Train",
    symbol="train",
    description="Run what a training config asks for; finished tasks of the same meaning are reused.",
    order=1,
    schema=lambda graph_config: TrainingConfig.model_json_schema(by_alias=True),
)
def train_action(parameters: Any, graph_config: Any, input: Any, task_group_id: Any, task_id: Any) -> None:
    """taskgraph's callback. `input` is the training config. Raises ConfigError with all that is wrong with it."""
    start_run(parameters, graph_config, checked_config(input))


def checked_config(values: Any) -> TrainingConfig:
    """The config of an action's input, checked as a file is."""
    return parse_training_config(yaml.safe_dump(values, allow_unicode=True, sort_keys=False), "input")
