"""The hook behind the actions: print its definition, which an administrator gives to the hooks service.

    python -m limbeck_taskgraph.hook --repository https://github.com/ORG/NAME > hook.json
    taskcluster api hooks createHook GROUP ID < hook.json          (both are printed to standard error)

Its id holds a hash of .taskcluster.yml: a changed file needs the hook anew.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import yaml
from taskgraph.actions.registry import hash_taskcluster_yml
from taskgraph.config import load_graph_config

from limbeck_taskgraph.catalogue import ROOT
from limbeck_taskgraph.deployment import deployment_of, repository_page, repository_role

PERMISSION = "generic"
_ACTION = ("name", "title", "description", "taskGroupId", "cb_name", "symbol")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and print the hook."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", required=True, help="where the sources of decision tasks come from")
    options = parser.parse_args(arguments)
    graph_config = load_graph_config(str(ROOT))
    group, name = hook_name(graph_config)
    print(f"{group} {name}", file=sys.stderr)
    print(json.dumps(hook_definition(graph_config, options.repository), indent=2))
    return 0


def hook_name(graph_config: Any) -> tuple[str, str]:
    """The hook's group and id, as actions.json names them."""
    level = deployment_of(graph_config).level
    fingerprint = hash_taskcluster_yml(graph_config.taskcluster_yml)
    return f"project-{graph_config['trust-domain']}", f"in-tree-action-{level}-{PERMISSION}/{fingerprint}"


def hook_definition(graph_config: Any, repository: str) -> dict[str, Any]:
    """What the hooks service is given: .taskcluster.yml's task in the context that an action has."""
    template = yaml.safe_load((ROOT.parent / ".taskcluster.yml").read_text(encoding="utf-8"))
    context = {
        "tasks_for": "action",
        "action": {
            "$merge": [
                {"$eval": "payload.decision.action"},
                {
                    "repo_scope": repository_role(repository, f"action:{PERMISSION}"),
                    "repository_page": repository_page(repository),
                },
            ]
        },
        "push": {"$eval": "payload.decision.push"},
        "repository": {"$eval": "payload.decision.repository"},
        "input": {"$eval": "payload.user.input"},
        "taskId": {"$eval": "payload.user.taskId"},
        "taskGroupId": {"$eval": "payload.user.taskGroupId"},
        "ownTaskId": {"$eval": "taskId"},
    }
    return {
        "metadata": {
            "name": f"Actions of {repository_page(repository)}",
            "description": "What decision tasks offer in their actions.json: train, evaluate, rerun, cancel.",
            "owner": deployment_of(graph_config).owner,
            "emailOnError": True,
        },
        "schedule": [],
        "bindings": [],
        "task": {"$let": context, "in": _without_id(template["tasks"])},
        "triggerSchema": _trigger_schema(repository),
    }


def _without_id(tasks: dict[str, Any]) -> dict[str, Any]:
    """The template of the one task; the service itself gives the id."""
    outer = tasks["in"]["then"]
    task = {key: value for key, value in outer["in"][0]["then"].items() if key != "taskId"}
    return {"$let": tasks["$let"], "in": {"$let": outer["$let"], "in": task}}


def _same(repository: str) -> list[str]:
    """How the address of the repository may be written: with and without .git."""
    plain = repository.removesuffix("/").removesuffix(".git")
    return [plain, f"{plain}.git"]


def _trigger_schema(repository: str) -> dict[str, Any]:
    text = {"type": "string"}
    # These stand in commands and routes: a commit, not an option of git or a name for what is fetched; one word.
    commit = {"type": "string", "pattern": "^[0-9a-f]{40}$"}
    ref = {"type": "string", "pattern": r"^refs/(heads|tags)/[^\s:]+$"}
    word = {"type": "string", "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"}
    anything = {"type": "object"}
    return {
        "type": "object",
        "required": ["decision", "user"],
        "additionalProperties": False,
        "properties": {
            "decision": {
                "type": "object",
                "required": ["action", "repository", "push"],
                "additionalProperties": False,
                "properties": {
                    "action": {
                        "type": "object",
                        "required": list(_ACTION),
                        "additionalProperties": False,
                        "properties": dict.fromkeys(
                            ("name", "title", "description", "taskGroupId", "cb_name", "symbol"), text
                        ),
                    },
                    # Whoever may trigger the hook may not run other sources with its scopes.
                    "repository": {
                        "type": "object",
                        "required": ["url", "project"],
                        "properties": {"url": {"enum": _same(repository)}, "project": word},
                    },
                    "push": {
                        "type": "object",
                        "required": ["revision", "branch"],
                        "properties": {"revision": commit, "branch": ref},
                    },
                },
            },
            "user": {
                "type": "object",
                "required": ["input", "taskId", "taskGroupId"],
                "additionalProperties": False,
                "properties": {
                    "input": {"anyOf": [anything, {"type": "null"}]},
                    "taskId": {"anyOf": [text, {"type": "null"}]},
                    "taskGroupId": {"anyOf": [text, {"type": "null"}]},
                },
            },
        },
    }


if __name__ == "__main__":
    sys.exit(main())
