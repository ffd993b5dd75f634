"""What decision and action tasks run.

    python -m limbeck_taskgraph.decision decision --project=… --head-repository=… …
    python -m limbeck_taskgraph.decision action

Both write what others read of them to the folder `artifacts` of the checkout: actions.json, parameters.yml,
label-to-taskid.json, task-graph.json. What the action is to do stands in the variables ACTION_….
"""

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence

import taskgraph.main
from taskgraph.actions import registry, render_actions_json
from taskgraph.config import load_graph_config
from taskgraph.parameters import Parameters
from taskgraph.util import taskcluster

from limbeck_taskgraph.catalogue import ROOT
from limbeck_taskgraph.config_file import ConfigError
from limbeck_taskgraph.deployment import deployment_of
from limbeck_taskgraph.target_tasks import UnknownStage
from pipeline.common.errors import EXIT_FAILED, EXIT_RETRY, TransientError, UserError

logger = logging.getLogger(__name__)

# Every file counts as changed: nothing here asks which, and a shallow clone could not tell.
_NO_BASE = "0" * 40
_DECISION_DEFAULTS = ["--pushlog-id=0", "--pushdate=0", "--repository-type=git", f"--base-rev={_NO_BASE}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what a decision or an action task is for; a person's errors end in one message."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    os.chdir(ROOT.parent)
    (ROOT.parent / "artifacts").mkdir(exist_ok=True)
    os.environ.setdefault("TASKGRAPH_SERIAL", "1")
    try:
        if words == ["action"]:
            logging.basicConfig(level=logging.INFO, format="%(message)s")
            run_action(os.environ)
        elif words[:1] == ["decision"]:
            return int(taskgraph.main.main(["decision", *_DECISION_DEFAULTS, *words[1:]]) or 0)
        else:
            raise UserError("the first argument must be decision or action")
    except TransientError as error:
        logger.error(error)
        return EXIT_RETRY
    except (UserError, ConfigError, UnknownStage) as error:
        logger.error(error)
        return EXIT_FAILED
    return 0


def run_action(environment: Mapping[str, str]) -> None:
    """Run the action that ACTION_CALLBACK, ACTION_INPUT, ACTION_TASK_GROUP_ID and ACTION_TASK_ID describe.

    All actions need the same permission, which whoever triggers their hook has shown; so none is asked for here.
    Raises UserError for an action that is not offered, for a group of other sources, and whatever the action raises.
    """
    group_id, name = environment["ACTION_TASK_GROUP_ID"], environment["ACTION_CALLBACK"]
    parameters = Parameters(**taskcluster.get_artifact(group_id, "public/parameters.yml"))
    graph_config = load_graph_config(str(ROOT))
    graph_config.register()
    # Any task can have such an artifact. What it says must not make tasks of other sources, with this project's scopes.
    expected = {
        "head_repository": environment["LIMBECK_REPOSITORY"],
        "head_rev": environment["LIMBECK_REVISION"],
        "level": deployment_of(graph_config).level,
    }
    for key, value in expected.items():
        if parameters[key] != value:
            raise UserError(f"{group_id} is no group of this action: its {key} is {parameters[key]}; needed: {value}")
    offered = [
        action["hookPayload"]["decision"]["action"]["cb_name"]
        for action in render_actions_json(parameters, graph_config, group_id)["actions"]
    ]
    if name not in offered:
        raise UserError(f"there is no action {name}; there are {', '.join(offered)}")
    given, task_id = (json.loads(environment.get(key, "null")) for key in ("ACTION_INPUT", "ACTION_TASK_ID"))
    registry.callbacks[name](parameters, graph_config, given, group_id, task_id)


if __name__ == "__main__":
    sys.exit(main())
