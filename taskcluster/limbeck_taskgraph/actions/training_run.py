"""What the actions that start tasks share: a config -> what is reused -> the tasks of the action's group."""

import datetime
import logging
import os
import time
from typing import Any

from taskgraph.decision import taskgraph_decision, write_artifact
from taskgraph.generator import TaskGraphGenerator
from taskgraph.parameters import Parameters
from taskgraph.taskgraph import TaskGraph
from taskgraph.util import taskcluster
from taskgraph.util.time import value_of

from limbeck_taskgraph.reuse import History, Named, Plan, make_plan
from limbeck_taskgraph.target_tasks import METHOD
from limbeck_taskgraph.taskcluster_history import IndexHistory, NoHistory, of_earlier_groups, of_named_tasks
from limbeck_taskgraph.taskcluster_worker import CONFIG
from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.common.errors import UserError

logger = logging.getLogger(__name__)


def start_run(parameters: Parameters, graph_config: Any, config: TrainingConfig) -> None:
    """Create the tasks that the config needs and that are not finished yet, in the action task's own group.

    Raises UserError for what the config names that there is not, UnknownStage for its target stage.
    """
    _check_nothing_is_there()
    values = run_parameters(parameters, config)
    graph = render(graph_config, values)
    plan = plan_run(graph, graph_config, values["level"], config)
    for label in sorted(plan.reused):
        logger.info(f"reused: {label} ({plan.reused[label]})")
    for label in sorted(plan.run):
        logger.info(f"runs:   {label}: {'; '.join(plan.run[label])}")
    values["existing_tasks"] = plan.reused
    values["existing_digests"] = {label: graph.tasks[label].attributes["digest"] for label in plan.by_name}
    given = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    write_artifact(CONFIG, given)
    taskgraph_decision({"root": graph_config.root_dir}, parameters=Parameters(**values))


def _check_nothing_is_there() -> None:
    """Raise UserError when an earlier run of this very task, which then broke off, has created tasks already."""
    own = os.environ["TASK_ID"]
    if taskcluster.testing:
        return
    if made := [task_id for task_id in taskcluster.list_task_group_incomplete_tasks(own) if task_id != own]:
        raise UserError(
            f"an earlier run of this action's task {own} broke off after it had created {len(made)} tasks, which never "
            "start: trigger the action again"
        )


def run_parameters(parameters: Parameters, config: TrainingConfig) -> dict[str, Any]:
    """The decision task's parameters, for a run of a config that nothing is reused for yet."""
    now = int(time.time())
    return {
        **parameters,
        "training_config": config.to_parameters(),
        "engine": "taskcluster",
        "existing_digests": {},
        "target_tasks_method": METHOD,
        "tasks_for": "action",
        "existing_tasks": {},
        "do_not_optimize": [],
        "optimize_target_tasks": True,
        "build_date": now,
        "moz_build_date": time.strftime("%Y%m%d%H%M%S", time.gmtime(now)),
    }


def render(graph_config: Any, values: dict[str, Any]) -> TaskGraph:
    """The target task graph of some parameters."""
    return TaskGraphGenerator(graph_config.root_dir, Parameters(**values)).target_task_graph


def plan_run(graph: TaskGraph, graph_config: Any, level: str, config: TrainingConfig) -> Plan:
    """Which finished tasks are used, and which tasks run and why."""
    prefix = config.start_task_prefix

    def fresh(label: str) -> str | None:
        task = graph.tasks[label]
        if not task.task["payload"]:
            return "only gathers others"
        if prefix and any(name.startswith(prefix) for name in (label, task.attributes["stage"], task.kind)):
            return f"start-task-prefix is {prefix}"
        return None

    dependents = graph.graph.reverse_links_dict()
    targets = [task.label for task in graph if not dependents[task.label]]
    named = Named(of_named_tasks(graph, config.existing_tasks), of_earlier_groups(config.previous_group_ids))
    return make_plan(graph, targets, _history(graph, graph_config, level), fresh, named)


def _history(graph: TaskGraph, graph_config: Any, level: str) -> History:
    if taskcluster.testing:
        logger.info("a test: the index is not searched for finished tasks")
        return NoHistory()
    deadline = value_of(graph_config["task-deadline-after"])
    return IndexHistory(graph, graph_config, level, datetime.datetime.now(datetime.UTC) + deadline)
