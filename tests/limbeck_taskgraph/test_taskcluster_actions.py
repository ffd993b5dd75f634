"""A push's decision task, the hook behind its actions, and the actions against services with real state."""

import copy
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsone
import pytest
import taskgraph.util.taskcluster
import yaml
from decision_services import Services
from jsonschema import Draft202012Validator
from jsonschema import ValidationError as Invalid
from slugid import nice
from taskcluster_schemas import SCHEMAS, check, check_task, needs_schemas
from taskgraph.actions import registry, render_actions_json
from taskgraph.config import GraphConfig, load_graph_config
from taskgraph.parameters import Parameters

from limbeck_taskgraph.actions.evaluate import evaluation_config
from limbeck_taskgraph.actions.rerun import sort_failures
from limbeck_taskgraph.actions.train import checked_config
from limbeck_taskgraph.catalogue import ROOT
from limbeck_taskgraph.config_file import ConfigError
from limbeck_taskgraph.decision import run_action
from limbeck_taskgraph.deployment import deployment_of
from limbeck_taskgraph.generate import taskcluster_parameters
from limbeck_taskgraph.hook import hook_definition, hook_name
from pipeline.common.errors import UserError

PROJECT = ROOT.parent
REPOSITORY, REVISION = "https://git.example.com/people/limbeck", "0123456789" * 4
MODEL = "https://models.example.com/student"
TRAINING = "train-teacher-model-en-de-1"
IMPLEMENTATIONS = ("generic-worker", "docker-worker")


def template(implementation: str = "generic-worker", **values: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((PROJECT / ".taskcluster.yml").read_text(encoding="utf-8"))
    found["tasks"]["$let"] |= {"implementation": implementation, **values}
    return found


def push(ref: str = "refs/heads/main", revision: str = REVISION) -> dict[str, Any]:
    page = REPOSITORY.removesuffix(".git")
    repository = {"clone_url": f"{page}.git", "html_url": page, "name": "limbeck"}
    event = {"ref": ref, "after": revision, "pusher": {"email": "a@example.com"}, "repository": repository}
    return {"tasks_for": "github-push", "event": event, "as_slugid": lambda name: "Cl6hKhyWSjmrB9tXLWhJYg"}


@pytest.fixture
def graph_config() -> GraphConfig:
    found = load_graph_config(str(ROOT))
    found.register()
    return found


@pytest.fixture
def parameters(make_config: Any) -> Parameters:
    values = {**taskcluster_parameters(make_config(), REPOSITORY, "refs/heads/main", REVISION, "a@example.com")}
    return Parameters(**{**values, "training_config": {}})


# The decision task


def test_taskcluster_yml_says_what_config_yml_says(graph_config: GraphConfig) -> None:
    deployment = deployment_of(graph_config)
    alias = graph_config["workers"]["aliases"][deployment.decision_worker]
    assert template()["tasks"]["$let"] == {
        "trust_domain": graph_config["trust-domain"],
        "provisioner": alias["provisioner"],
        "worker_type": alias["worker-type"],
        "implementation": alias["implementation"],
        "docker_image": deployment.docker_image(deployment.decision_worker),
        "prepared_environment": deployment.environment.prepared or "",
        "python": deployment.environment.python,
        "extras": ",".join(deployment.environment.extras),
        "pip_arguments": " ".join(deployment.environment.pip_arguments),
        "owner": deployment.owner,
        "level": deployment.level,
        "priority": graph_config["task-priority"],
    }
    [task] = jsone.render(template()["tasks"], push())
    script = task["payload"]["command"][0][2]
    assert script == (ROOT / "scripts" / "checkout.sh").read_text(encoding="utf-8")


@needs_schemas
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("prepared", ["", "/opt/limbeck"])
def test_the_decision_task_of_a_push_is_what_the_services_accept(implementation: str, prepared: str) -> None:
    [task] = jsone.render(template(implementation, prepared_environment=prepared)["tasks"], push())
    assert task.pop("taskId") == task["taskGroupId"]
    check_task(task, implementation)
    assert task["scopes"] == ["assume:repo:git.example.com/people/limbeck:branch:main"]
    assert task["routes"] == [f"index.limbeck.v2.limbeck.revision.{REVISION}.taskgraph.decision"]


def test_tags_have_a_role_of_their_own_and_deleted_branches_no_task() -> None:
    [task] = jsone.render(template()["tasks"], push("refs/tags/v1"))
    assert task["scopes"] == ["assume:repo:git.example.com/people/limbeck:tag:v1"]
    assert jsone.render(template()["tasks"], push(revision="0" * 40)) == []


@pytest.mark.parametrize("kind", ["github-pull-request", "github-pull-request-untrusted", "github-release"])
def test_other_events_have_no_task(kind: str) -> None:
    # They have no ref, no pusher, and mostly no commit.
    repository = {"clone_url": f"{REPOSITORY}.git", "html_url": REPOSITORY, "name": "limbeck"}
    event = {"action": "opened", "number": 1, "pull_request": {"number": 1}, "repository": repository}
    context = {"tasks_for": kind, "event": event, "as_slugid": lambda name: nice()}
    assert jsone.render(template()["tasks"], context) == []


def test_a_decision_makes_no_tasks_but_offers_actions(tmp_path: Path, services: Services) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "init", "--quiet", str(clone)], check=True)
    for name in ("taskcluster", ".taskcluster.yml", "pipeline", "pyproject.toml"):
        (clone / name).symlink_to(PROJECT / name)
    git = ["git", "-C", str(clone), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "one"], check=True)
    revision = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    code = "import sys, pathlib, limbeck_taskgraph.decision as d; d.ROOT = pathlib.Path('taskcluster').absolute(); "
    code += "sys.exit(d.main(sys.argv[1:]))"
    [task] = jsone.render(template()["tasks"], push(revision=revision))
    words = task["payload"]["command"][0]
    arguments = words[words.index("limbeck_taskgraph.decision") + 1 :]
    environment = {"PATH": "/usr/bin:/bin", "TASK_ID": nice(), "TASKCLUSTER_ROOT_URL": services.url}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=clone, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert services.requests == []
    artifacts = clone / "artifacts"
    assert json.loads((artifacts / "label-to-taskid.json").read_text()) == {}
    actions = json.loads((artifacts / "actions.json").read_text())
    assert [action["name"] for action in actions["actions"]] == ["train", "evaluate", "rerun", "cancel"]
    written = yaml.safe_load((artifacts / "parameters.yml").read_text())
    assert (written["engine"], written["training_config"], written["head_rev"]) == ("taskcluster", {}, revision)


# Actions and their hook


@needs_schemas
def test_actions_and_hook_are_what_the_services_accept(graph_config: GraphConfig, parameters: Parameters) -> None:
    actions = render_actions_json(parameters, graph_config, "Cl6hKhyWSjmrB9tXLWhJYg")
    check(actions, "common__action-schema-v1")
    group, name = hook_name(graph_config)
    assert {(action["hookGroupId"], action["hookId"]) for action in actions["actions"]} == {(group, name)}
    definition = hook_definition(graph_config, REPOSITORY)
    check(definition | {"hookGroupId": group, "hookId": name}, "hooks__v1__create-hook-request")


@needs_schemas
@pytest.mark.parametrize("name", ["train", "cancel", "rerun", "evaluate"])
def test_a_triggered_hook_makes_the_actions_task(
    name: str, graph_config: GraphConfig, parameters: Parameters, make_config: Any
) -> None:
    group = "Cl6hKhyWSjmrB9tXLWhJYg"
    actions = {action["name"]: action for action in render_actions_json(parameters, graph_config, group)["actions"]}
    given = make_config.values() if name == "train" else None
    context = {"input": given, "taskId": None, "taskGroupId": group}
    payload = jsone.render(actions[name]["hookPayload"], context)
    definition = hook_definition(graph_config, REPOSITORY)
    trigger = Draft202012Validator(definition["triggerSchema"])
    trigger.validate(payload)
    own = nice()
    task = jsone.render(definition["task"], {"payload": payload, "taskId": own, "clientId": "me", "firedBy": "trigger"})
    check_task(task, "generic-worker")
    assert task["taskGroupId"] == own
    assert task["scopes"] == ["assume:repo:git.example.com/people/limbeck:action:generic"]
    environment = task["payload"]["env"]
    assert json.loads(environment["ACTION_INPUT"]) == given
    assert environment["ACTION_TASK_GROUP_ID"] == group
    assert environment["ACTION_CALLBACK"] in registry.callbacks
    assert environment["LIMBECK_REVISION"] == REVISION
    # Nobody runs other sources with the hook's scopes, or puts words of their own into commands and routes.
    for section, key, value in (
        ("repository", "url", "https://elsewhere.example.com/people/limbeck"),
        ("repository", "project", "limbeck.revision.x/y"),
        ("push", "revision", "FETCH_HEAD"),
        ("push", "revision", "--upload-pack=touch x"),
        ("push", "branch", "refs/pull/1/head"),
        ("push", "branch", "--upload-pack=touch x"),
    ):
        wrong = copy.deepcopy(payload)
        wrong["decision"][section][key] = value
        with pytest.raises(Invalid):
            trigger.validate(wrong)


def test_the_train_actions_schema_is_the_configs(
    graph_config: GraphConfig, parameters: Parameters, make_config: Any
) -> None:
    [train, *_] = render_actions_json(parameters, graph_config, "group")["actions"]
    schema = Draft202012Validator(train["schema"])
    schema.validate(make_config.values())
    with pytest.raises(Invalid):
        schema.validate(make_config.values(experimnt={}))
    for path in (PROJECT / "configs").glob("*.yml"):
        schema.validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_a_wrong_config_is_refused_with_its_keys(make_config: Any) -> None:
    with pytest.raises(ConfigError, match=r"experiment\.teacher-ensemble: found 0"):
        checked_config(make_config.values(experiment={"teacher-ensemble": 0}))


def test_taskgraphs_own_test_of_an_action_prints_the_definitions(tmp_path: Path, make_config: Any) -> None:
    given = {"head_repository": REPOSITORY, "base_repository": REPOSITORY, "head_rev": REVISION, "level": "1"}
    given |= {"repository_type": "hg", "head_ref": "refs/heads/main", "project": "limbeck", "owner": "a@example.com"}
    (tmp_path / "parameters.yml").write_text(yaml.safe_dump(given))
    (tmp_path / "input.yml").write_text(yaml.safe_dump(make_config.values()))
    words = [
        "test-action-callback",
        "--root",
        str(ROOT),
        "--parameters",
        "parameters.yml",
        "--input",
        "input.yml",
        "train",
    ]
    # Nobody answers there.
    variables = {"TASK_ID": nice(), "TASKCLUSTER_ROOT_URL": "http://127.0.0.1:1", "TASKGRAPH_SERIAL": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("taskgraph")), *words],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    decoder, text, found = json.JSONDecoder(), done.stdout.strip(), []
    while text:
        (_, definition), end = decoder.raw_decode(text)
        found.append(definition)
        text = text[end:].strip()
    assert TRAINING in {definition["metadata"]["name"] for definition in found}
    assert {definition["taskGroupId"] for definition in found} == {variables["TASK_ID"]}
    if SCHEMAS:
        for definition in found:
            check_task(definition, "generic-worker")


class Run:
    """The action `train` in the services: what it made, and the queue working on it."""

    def __init__(
        self, services: Services, parameters: Parameters, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.services, self.parameters, self.monkeypatch = services, parameters, monkeypatch
        monkeypatch.chdir(folder)
        self.decision = self._task(dict(parameters))

    def _task(self, parameters: dict[str, Any]) -> str:
        task_id = nice()
        self.services.tasks[task_id] = {"taskGroupId": task_id, "metadata": {"name": "decision"}}
        self.services.states[task_id] = "completed"
        self.services.artifacts[task_id, "public/parameters.yml"] = yaml.safe_dump(parameters).encode()
        return task_id

    def act(self, callback: str, given: Any, group: str | None = None) -> str:
        """Run an action as its task does; returns the id of its task, and so of its group."""
        task_id = self._task({})
        self.monkeypatch.setenv("TASK_ID", task_id)
        taskgraph.util.taskcluster._task_definitions_cache.cache.clear()
        environment = {"ACTION_TASK_GROUP_ID": group or self.decision, "ACTION_CALLBACK": callback}
        environment |= {"LIMBECK_REPOSITORY": REPOSITORY, "LIMBECK_REVISION": REVISION}
        run_action({**environment, "ACTION_INPUT": json.dumps(given), "ACTION_TASK_ID": "null"})
        for path in Path("artifacts").glob("*") if Path("artifacts").exists() else ():
            self.services.artifacts[task_id, f"public/{path.name}"] = path.read_bytes()
        return task_id

    def made(self, group: str) -> dict[str, str]:
        """Task id by label of what an action created."""
        names = {task: self.services.tasks[task]["metadata"]["name"] for task in self.services.group(group)}
        return {name: task for task, name in names.items() if task != group}

    def finish(self, group: str, *but: str) -> None:
        for name, task_id in self.made(group).items():
            if name not in but:
                self.services.finish(task_id)

    def labels(self, group: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.services.artifacts[group, "public/label-to-taskid.json"])
        return found


@pytest.fixture
def run(
    services: Services, parameters: Parameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph_config: Any
) -> Run:
    return Run(services, parameters, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "changed", [{"head_repository": "https://elsewhere.example.com/x"}, {"head_rev": "f" * 40}, {"level": "3"}]
)
def test_a_task_that_somebody_made_up_makes_no_tasks_of_other_sources(
    run: Run, make_config: Any, changed: dict[str, str]
) -> None:
    made_up = run._task({**run.parameters, **changed})
    before = set(run.services.tasks)
    with pytest.raises(UserError, match=f"{made_up} is no group of this action: its {next(iter(changed))} is"):
        run.act("train", make_config.values(), made_up)
    assert len(set(run.services.tasks) - before) == 1  # the action's own


def test_a_second_identical_run_makes_nothing_anew(run: Run, make_config: Any) -> None:
    values = make_config.values()
    first = run.act("train", values)
    made = run.made(first)
    assert len(made) > 30
    for task_id in made.values():
        task = run.services.tasks[task_id]
        assert (task["taskGroupId"], task["schedulerId"]) == (first, "limbeck-level-1")
    run.finish(first)
    second = run.act("train", values)
    # The task that only gathers is made, so that the group shows how it ended.
    assert set(run.made(second)) == {"all-pipeline-en-de"}
    gathered = run.labels(second)
    assert gathered["export-en-de"] == made["export-en-de"]
    assert gathered["report-en-de"] == made["report-en-de"]
    assert set(run.services.tasks[run.made(second)["all-pipeline-en-de"]]["dependencies"]) >= {made["export-en-de"]}


def test_only_what_a_change_reaches_runs_again(run: Run, make_config: Any) -> None:
    first = run.act("train", make_config.values())
    run.finish(first, "distillation-student-model-train-en-de")
    run.services.states[run.made(first)["distillation-student-model-train-en-de"]] = "failed"
    again = run.made(run.act("train", make_config.values(experiment={"student-model": "base"})))
    assert "distillation-student-model-train-en-de" in again
    assert not {label for label in again if label.startswith(("dataset", "train-teacher", "corpus"))}
    student = run.services.tasks[again["distillation-student-model-train-en-de"]]
    fetched = {fetch["task"] for fetch in json.loads(student["payload"]["env"]["MOZ_FETCHES"])}
    assert run.made(first)["build-vocab-en-de"] in fetched
    # Another pair has the same data sets, but nothing of it fits.
    other = run.made(run.act("train", make_config.values(experiment={"trg": "fr"})))
    assert TRAINING.replace("en-de", "en-fr") in other


def test_a_task_that_expires_too_early_is_made_anew(run: Run, make_config: Any) -> None:
    values = make_config.values()
    run.finish(run.act("train", values))
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    run.services.expires = soon.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert TRAINING in run.made(run.act("train", values))


def test_earlier_groups_stand_in_by_label_and_what_follows_is_not_taken_for_this_configs(
    run: Run, make_config: Any
) -> None:
    first = run.act("train", make_config.values())
    run.finish(first)
    changed = {"experiment": {"spm-vocab-size": 8000}, "previous_group_ids": [first]}
    other = make_config.values(**changed, start_task_prefix="distillation-student-model-train")
    second = run.act("train", other)
    made = run.made(second)
    assert "distillation-student-model-train-en-de" in made
    assert not {label for label in made if label.startswith(("build-vocab", "train-teacher", "dataset"))}
    # With its own vocabulary the student is another one.
    third = run.act("train", make_config.values(experiment={"spm-vocab-size": 8000}))
    run.finish(second)
    assert "build-vocab-en-de" in run.made(third)
    student = [
        run.services.tasks[run.made(group)["distillation-student-model-train-en-de"]] for group in (second, third)
    ]
    assert student[0]["routes"] != student[1]["routes"]


def test_named_tasks_that_there_are_not(run: Run, make_config: Any) -> None:
    with pytest.raises(UserError, match=r"previous-group-ids: .* has no artifact public/label-to-taskid\.json"):
        run.act("train", make_config.values(previous_group_ids=[run.decision[::-1]]))
    with pytest.raises(UserError, match=r"existing-tasks: build-vocab-en-de: .* it is unknown to the queue"):
        run.act("train", make_config.values(existing_tasks={"build-vocab-en-de": "V0cabuIaryTaskTaskTaAA"}))
    with pytest.raises(UserError, match="existing-tasks: this config has no task build-vocab-en-fr"):
        run.act("train", make_config.values(existing_tasks={"build-vocab-en-fr": run.decision}))
    with pytest.raises(UserError, match="no action retrigger; there are train, evaluate, rerun-run, cancel-run"):
        run.act("retrigger", None)


def test_an_action_that_broke_off_does_not_make_its_tasks_twice(run: Run, make_config: Any) -> None:
    group = run.act("train", make_config.values(target_stage="build-vocab"))
    made = run.made(group)
    run.monkeypatch.setenv("TASK_ID", group)
    given = {"ACTION_TASK_GROUP_ID": run.decision, "ACTION_CALLBACK": "train"}
    given |= {"LIMBECK_REPOSITORY": REPOSITORY, "LIMBECK_REVISION": REVISION}
    given["ACTION_INPUT"] = json.dumps(make_config.values())
    with pytest.raises(UserError, match=f"had created {len(made)} tasks, which never start: trigger the action again"):
        run_action(given)
    assert run.made(group) == made


def test_cancelling_seals_first_and_rerunning_starts_what_can_start(run: Run, make_config: Any) -> None:
    group = run.act("train", make_config.values())
    made, states = run.made(group), run.services.states
    run.finish(group, *[label for label in made if not label.startswith(("dataset", "corpus-clean"))])
    states[made["build-vocab-en-de"]] = "failed"
    states[made["corpus-clean-parallel-gettext-one-en-de"]] = "exception"
    with pytest.raises(UserError, match=r"1 tasks ended before what they wait for, such as build-vocab-en-de"):
        run.act("rerun-run", None, group)
    assert states[made["corpus-clean-parallel-gettext-one-en-de"]] == "pending"
    # It waits for the merged corpus, which is not there.
    assert states[made["build-vocab-en-de"]] == "failed"
    run.act("cancel-run", None, group)
    assert group in run.services.sealed
    assert {states[task_id] for task_id in made.values()} == {"completed", "failed", "exception"}
    seal, cancel = [place for place, asked in enumerate(run.services.requests) if asked.endswith(("/seal", "/cancel"))]
    assert seal < cancel


def test_what_can_run_again() -> None:
    def task(name: str, state: str, *dependencies: str) -> dict[str, Any]:
        return {
            "status": {"taskId": name, "state": state},
            "task": {"metadata": {"name": name}, "dependencies": list(dependencies)},
        }

    tasks = [
        task("a", "completed", "other-group"), task("b", "failed", "a", "other-group"), task("c", "exception", "b"),
        task("d", "unscheduled", "b"), task("e", "running", "a"),
    ]  # fmt: skip
    assert sort_failures(tasks) == ({"b": "b"}, {"c": "c"})


def request(**more: Any) -> dict[str, Any]:
    model = {"url": MODEL, "mode": "use"}
    vocab = {"src": f"{MODEL}/vocab.en.spm", "trg": f"{MODEL}/vocab.de.spm"}
    pair = {"name": "scores", "src": "en", "trg": "de"}
    return {**pair, "role": "teacher", "model": model, "vocab": vocab, "test": ["sacrebleu_wmt19"], **more}


@pytest.mark.parametrize("role", ["teacher", "student", "backwards"])
def test_evaluating_a_model_trains_nothing(run: Run, role: str) -> None:
    made = run.made(run.act("evaluate", request(role=role)))
    kinds = {run.services.tasks[task_id]["tags"]["kind"] for task_id in made.values()}
    assert "evaluate" in kinds
    assert kinds <= {"dataset", "continuation-model", "continuation-vocab", "evaluate"}


def test_requests_for_evaluations_that_are_wrong(run: Run) -> None:
    with pytest.raises(UserError, match=r"model\.mode: found 'init'"):
        evaluation_config(request(model={"url": MODEL, "mode": "init"}))
    with pytest.raises(UserError, match="test: "):
        evaluation_config(request(test=[]))
    with pytest.raises(UserError, match="role: "):
        evaluation_config(request(role="referee"))
