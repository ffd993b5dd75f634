"""Rendering: a training config -> the graph of all that its target stage needs."""

import logging
import os
from typing import Any

from taskgraph.config import load_graph_config
from taskgraph.generator import TaskGraphGenerator
from taskgraph.parameters import Parameters
from taskgraph.taskgraph import TaskGraph

from limbeck_taskgraph.catalogue import ROOT
from limbeck_taskgraph.deployment import deployment_of, repository_page
from limbeck_taskgraph.parameters import own_parameters
from limbeck_taskgraph.target_tasks import METHOD
from limbeck_taskgraph.training_config import TrainingConfig


def generate_graph(config: TrainingConfig) -> TaskGraph:
    """The target task graph: everything that `target-stage` needs, nothing reused yet.

    Raises UnknownStage for a target stage that the config has no tasks for.
    """
    # Forking one process per kind costs more than it saves on graphs of this size.
    os.environ.setdefault("TASKGRAPH_SERIAL", "1")
    logging.getLogger("taskgraph").setLevel(logging.CRITICAL)
    generator = TaskGraphGenerator(str(ROOT), lambda graph_config: graph_parameters(config))
    return generator.target_task_graph


def graph_parameters(config: TrainingConfig) -> Parameters:
    """taskgraph's parameters for a run that no version control triggered (a clone or a tarball serves as well)."""
    parameters = Parameters(
        **(own_parameters("local") | {"training_config": config.to_parameters()}),
        target_tasks_method=METHOD,
        tasks_for="action",
        # "hg" only keeps taskgraph from demanding a GitHub URL and from adding GitHub's routes.
        repository_type="hg",
        head_repository=ROOT.parent.as_uri(),
        head_rev="local",
        head_ref="local",
        head_tag="",
        base_repository="",
        base_rev="",
        base_ref="",
        project="limbeck",
        level="1",
        owner="nobody@localhost.invalid",
        # Fixed dates: the same config renders the same graph.
        build_date=0,
        build_number=1,
        moz_build_date="19700101000000",
        pushdate=0,
        pushlog_id="0",
        do_not_optimize=[],
        enable_always_target=True,
        existing_tasks={},
        files_changed=[],
        filters=["target_tasks_method"],
        next_version=None,
        optimize_strategies=None,
        optimize_target_tasks=True,
        version=None,
    )
    parameters.check()
    return parameters


def taskcluster_parameters(config: TrainingConfig, repository: str, ref: str, revision: str, owner: str) -> Parameters:
    """The same for a run of the config on a Taskcluster deployment, from the sources of a revision."""
    graph_config = load_graph_config(str(ROOT))
    graph_config.register()
    parameters = Parameters(
        **{
            **graph_parameters(config),
            "engine": "taskcluster",
            "head_repository": repository,
            "base_repository": repository,
            "head_ref": ref,
            "head_rev": revision,
            "project": repository_page(repository).rpartition("/")[2],
            "level": deployment_of(graph_config).level,
            "owner": owner,
        }
    )
    parameters.check()
    return parameters


def worker_resources() -> dict[str, dict[str, Any]]:
    """What a task of each worker type takes of one machine, from config.yml."""
    resources: dict[str, dict[str, Any]] = load_graph_config(str(ROOT))["worker-resources"]
    return resources
