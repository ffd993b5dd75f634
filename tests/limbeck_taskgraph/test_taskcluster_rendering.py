"""Configs -> what a Taskcluster deployment gets: routes, scopes, payloads, limits; judged by the services' schemas."""

import json
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import taskgraph.util.taskcluster
from taskcluster_schemas import ValidationError, check_task, needs_schemas
from taskgraph.graph import Graph
from taskgraph.task import Task
from taskgraph.taskgraph import TaskGraph

from limbeck_taskgraph.catalogue import ROOT
from limbeck_taskgraph.config_file import load_training_config
from limbeck_taskgraph.deployment import deployment_of, repository_page, repository_role
from limbeck_taskgraph.fan_out import FOR_EACH
from limbeck_taskgraph.generate import generate_graph
from limbeck_taskgraph.graph_limits import depth
from limbeck_taskgraph.worker_payload import READING
from pipeline.common.errors import UserError

CONFIGS = [path for path in sorted((ROOT.parent / "configs").glob("**/*.yml")) if path.parent.name != "engines"]
IMPLEMENTATIONS = ("generic-worker", "docker-worker")
REVISION = "0123456789" * 4
TRAIN = "train-teacher-model-en-de-1"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering asks no service anything."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a service was asked")

    monkeypatch.setattr(taskgraph.util.taskcluster, "get_taskcluster_client", refuse)
    monkeypatch.setattr(taskgraph.util.taskcluster, "get_session", refuse)


@needs_schemas
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_task_of_every_example_is_what_the_services_accept(
    path: Path, implementation: str, deployment: Any
) -> None:
    definitions = deployment.use(implementation).render(load_training_config(path))
    assert len(definitions) > 10
    for definition in definitions.values():
        check_task(definition, implementation)


@needs_schemas
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_judge_sees_errors(implementation: str, deployment: Any, make_config: Any) -> None:
    good = deployment.use(implementation).render(make_config())[TRAIN]
    check_task(good, implementation)
    wrong = [{"priority": "urgent"}, {"routes": ["x"] * 2}, {"workerType": "B_gpu"}]
    for change in wrong:
        with pytest.raises(ValidationError):
            check_task(good | change, implementation)
    payloads = [{"maxRunTime": "3600"}, {"env": {"NUMBER": 1}}, {"onExitStatus": {"retry": ["75"]}}, {"unknown": 1}]
    if implementation == "generic-worker":
        payloads.append({"mounts": [{**good["payload"]["mounts"][0], "extra": 1}]})
    for change in payloads:
        with pytest.raises(ValidationError):
            check_task(good | {"payload": good["payload"] | change}, implementation)


def test_a_tasks_index_route_names_domain_level_kind_pair_and_digest(deployment: Any, make_config: Any) -> None:
    definitions = deployment.render(make_config())
    local = generate_graph(make_config())
    for label, definition in definitions.items():
        digest = local.tasks[label].attributes["digest"]
        assert definition["extra"]["limbeck"]["digest"] == digest
        kind = definition["tags"]["kind"]
        expected = [] if kind == "all-pipeline" else [f"index.limbeck.cache.level-1.{kind}.en-de.{digest}"]
        assert definition["routes"] == expected
    other = deployment.render(make_config(experiment={"src": "de", "trg": "en"}))
    ours = {route for definition in definitions.values() for route in definition["routes"]}
    assert not ours & {route for definition in other.values() for route in definition["routes"]}
    assert len(ours) == len(definitions) - 1


def test_a_worker_runs_the_same_command_as_the_local_engine(deployment: Any, make_config: Any) -> None:
    local = generate_graph(make_config())
    for implementation in IMPLEMENTATIONS:
        for label, definition in deployment.use(implementation).render(make_config()).items():
            if not definition["payload"]:
                continue
            command = definition["payload"]["command"]
            words = command[0] if implementation == "generic-worker" else command
            assert words[:2] == ["bash", "-c"]
            start = words.index("limbeck_taskgraph.taskcluster_worker") + 1
            assert "".join(words[start:]) == local.tasks[label].task["payload"]["command"][0][-1]
            environment = definition["payload"]["env"]
            assert environment["LIMBECK_REVISION"] == REVISION
            assert len(json.loads(environment["MOZ_FETCHES"])) == len(
                json.loads(local.tasks[label].task["payload"]["env"]["MOZ_FETCHES"]["task-reference"])
            )


def test_local_rendering_does_not_depend_on_the_deployments_workers(deployment: Any, make_config: Any) -> None:
    before = generate_graph(make_config()).to_json()
    deployment.use("docker-worker").set(environment={"prepared": "/opt/x"})
    deployment.generator(make_config())  # puts the changed config.yml in place
    assert generate_graph(make_config()).to_json() == before


def test_trainings_may_lose_their_machine_often(deployment: Any, make_config: Any) -> None:
    tasks = deployment.render(make_config())
    for label in ("train-teacher-model-en-de-1", "distillation-student-model-train-en-de"):
        assert tasks[label]["retries"] == 49
    assert "retries" not in tasks["build-vocab-en-de"]


def test_run_times_retries_expiry_and_artifacts(deployment: Any, make_config: Any) -> None:
    task = deployment.set(max_run_time=7200).render(make_config())[TRAIN]
    assert task["payload"]["maxRunTime"] == 7200
    assert task["payload"]["onExitStatus"] == {"retry": [75]}
    assert task["payload"]["artifacts"] == [{"type": "directory", "path": "artifacts", "name": "public/build"}]
    assert task["payload"]["mounts"] == [{"cacheName": "limbeck-level-1-environment", "directory": "environment"}]
    # Checkpoints are published by the task itself.
    assert task["payload"]["features"] == {"taskclusterProxy": True}
    assert set(task["scopes"]) == {"generic-worker:cache:limbeck-level-1-environment", *READING}
    docker = deployment.use("docker-worker").render(make_config())[TRAIN]
    assert docker["payload"]["image"] == "limbeck-train:latest"
    assert docker["payload"]["artifacts"]["public/build"]["path"] == "/builds/worker/artifacts"
    assert docker["payload"]["artifacts"]["public/build"]["expires"] == docker["expires"]
    assert docker["payload"]["onExitStatus"] == {"retry": [75]}


def test_a_prepared_environment_needs_no_cache(deployment: Any, make_config: Any) -> None:
    deployment.set(environment={"prepared": "/opt/limbeck"})
    task = deployment.render(make_config())["build-vocab-en-de"]
    assert "mounts" not in task["payload"]
    assert task["scopes"] == []
    assert task["payload"]["env"]["LIMBECK_ENVIRONMENT"] == "/opt/limbeck"


def test_only_tasks_that_ask_the_queue_have_the_proxy_unless_all_must(deployment: Any, make_config: Any) -> None:
    def asking() -> set[str]:
        found = deployment.render(make_config()).items()
        return {label for label, task in found if task["payload"].get("features", {}).get("taskclusterProxy")}

    few = asking()
    assert {TRAIN, "distillation-student-model-train-en-de"} <= few
    assert not few & {"build-vocab-en-de", "dataset-gettext-one-en-de", "all-pipeline-en-de"}
    deployment.set(anonymous_reads=False)
    assert asking() == deployment.render(make_config()).keys() - {"all-pipeline-en-de"}


def test_only_tasks_that_need_a_secret_may_read_it(deployment: Any, make_config: Any) -> None:
    secret = {"secret": "project/limbeck/level-1/hub", "key": "token", "kinds": ["build-vocab"]}
    tracking = {"secret": "project/limbeck/level-1/wandb", "key": "api-key", "with-variable": "LIMBECK_WANDB_PROJECT"}
    deployment.set(secrets={"HF_TOKEN": secret, "WANDB_API_KEY": tracking})
    definitions = deployment.render(make_config(wandb_publication=True))
    readers = {
        label: scope
        for label, definition in definitions.items()
        for scope in definition["scopes"]
        if scope.startswith("secrets:")
    }
    assert readers == {
        "build-vocab-en-de": "secrets:get:project/limbeck/level-1/hub",
        TRAIN: "secrets:get:project/limbeck/level-1/wandb",
        "distillation-student-model-train-en-de": "secrets:get:project/limbeck/level-1/wandb",
    }
    for label in readers:
        assert definitions[label]["payload"]["features"] == {"taskclusterProxy": True}
    wanted = json.loads(definitions["build-vocab-en-de"]["payload"]["env"]["LIMBECK_SECRETS"])
    assert wanted == {"HF_TOKEN": {"secret": "project/limbeck/level-1/hub", "key": "token"}}
    assert "LIMBECK_SECRETS" not in definitions["export-en-de"]["payload"]["env"]
    silent = deployment.render(make_config())[TRAIN]
    assert not [scope for scope in silent["scopes"] if scope.startswith("secrets:")]


def test_classes_of_workers(deployment: Any, make_config: Any) -> None:
    classes = {"split-chunks": 3, "worker-classes": {"default": "gcp-spot", "build-vocab": "gcp-standard"}}
    definitions = deployment.render(make_config(taskcluster=classes))
    assert definitions[TRAIN]["workerType"] == "b-largegpu-spot"
    assert definitions["build-vocab-en-de"]["workerType"] == "b-cpu"
    assert definitions["all-pipeline-en-de"]["workerType"] == "succeed"
    assert deployment.render(make_config())[TRAIN]["workerType"] == "b-largegpu"


def test_existing_tasks_take_away_what_only_they_needed(deployment: Any, make_config: Any) -> None:
    config = make_config(target_stage="evaluate-teacher")
    finished = {"train-teacher-model-en-de-1": "C0mpleteTaskTaskTaskAA", "build-vocab-en-de": "V0cabuIaryTaskTaskTaAA"}
    digests = {"train-teacher-model-en-de-1": "of-another-config"}
    whole = deployment.render(config)
    part = deployment.render(config, existing_tasks=finished, existing_digests=digests)
    evaluation = "evaluate-teacher-gettext-test-en-de-1"
    assert set(part) == {evaluation, "dataset-gettext-test-en-de"}
    fetched = {fetch["task"] for fetch in json.loads(part[evaluation]["payload"]["env"]["MOZ_FETCHES"])}
    assert set(finished.values()) < fetched
    # What was made from another config's model is not found as this config's own.
    assert part[evaluation]["extra"]["limbeck"]["inputs"]["model"] == {TRAIN: "of-another-config"}
    assert part[evaluation]["routes"] != whole[evaluation]["routes"]
    assert part["dataset-gettext-test-en-de"]["routes"] == whole["dataset-gettext-test-en-de"]["routes"]


def test_many_dependencies_are_gathered_in_between(deployment: Any, make_config: Any) -> None:
    whole = deployment.render(make_config())
    definitions = deployment.set(max_dependencies=4).render(make_config())
    added = definitions.keys() - whole.keys()
    assert {f"report-en-de-inputs-{number}" for number in (1, 2, 3)} <= added
    assert all(len(definition.get("dependencies", [])) <= 4 for definition in definitions.values())
    for label in added:
        assert (definitions[label]["provisionerId"], definitions[label]["workerType"]) == ("built-in", "succeed")
        assert definitions[label]["payload"] == {}
    for label, definition in whole.items():
        if definition["payload"]:
            fetches = [definitions[label]["payload"]["env"]["MOZ_FETCHES"], definition["payload"]["env"]["MOZ_FETCHES"]]
            assert len(json.loads(fetches[0])) == len(json.loads(fetches[1]))


def test_inputs_that_one_variable_cannot_hold_stand_in_several(
    deployment: Any, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = deployment.render(make_config())["report-en-de"]["payload"]["env"]
    monkeypatch.setattr("limbeck_taskgraph.worker_payload.FETCHES_SIZE", 700)
    split = deployment.render(make_config())["report-en-de"]["payload"]["env"]
    names = [name for name in split if name.startswith("MOZ_FETCHES")]
    assert names == ["MOZ_FETCHES", *(f"MOZ_FETCHES_{number}" for number in range(2, len(names) + 1))]
    assert len(names) > 2
    assert all(len(split[name]) <= 700 for name in names)
    together = [fetch["dest"] for name in names for fetch in json.loads(split[name])]
    assert together == [fetch["dest"] for fetch in json.loads(report["MOZ_FETCHES"])]


def test_a_graph_that_is_too_deep_is_refused(deployment: Any, make_config: Any) -> None:
    graph = deployment.generator(make_config()).target_task_graph
    found = depth(graph)
    assert 10 < found < 40
    with pytest.raises(UserError, match=rf"{found} tasks of the graph stand in a row, but deployment\.max-depth .* 10"):
        _ = deployment.set(max_depth=10).generator(make_config()).target_task_graph


def test_depth_is_that_of_the_longest_row() -> None:
    labels = [str(number) for number in range(300)]
    edges = {(labels[number], labels[number - 1], "up") for number in range(1, 300)} | {("299", "0", "short")}
    tasks = {label: Task("kind", label, {}, {}) for label in labels}
    assert depth(TaskGraph(tasks, Graph(frozenset(labels), frozenset(edges)))) == 300


def test_two_stages_of_one_label_are_refused(
    deployment: Any, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = {"dataset": "gettext_same", "dataset-name": "gettext_same", "dataset-label": "gettext-same", "uses": []}
    monkeypatch.setitem(FOR_EACH, "parallel-datasets", lambda context: iter([dict(twice), dict(twice)]))
    with pytest.raises(Exception, match="duplicate tasks with label dataset-gettext-same-en-de"):
        _ = deployment.generator(make_config()).full_task_set


def test_errors_of_config_yml_say_where(deployment: Any, make_config: Any) -> None:
    with pytest.raises(UserError, match=r"deployment: .*max-depht"):
        deployment.set(max_depht=3).render(make_config())
    with pytest.raises(UserError, match=r"docker-images names no image for b-cpu"):
        deployment_of({"deployment": _settings()}).docker_image("b-cpu")
    with pytest.raises(UserError, match="the section deployment is missing"):
        deployment_of({})


def _settings() -> dict[str, Any]:
    return {
        "root-url": "https://tc.example.com", "owner": "a@example.com", "level": "1", "decision-worker": "b-cpu",
        "max-dependencies": 10, "max-depth": 10, "max-run-time": 10, "environment": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("repository", "page"),
    [
        ("https://github.com/people/limbeck", "https://github.com/people/limbeck"),
        ("https://token@git.example.com:8443/a/b.git/", "https://git.example.com:8443/a/b"),
        ("git@github.com:people/limbeck.git", "https://github.com/people/limbeck"),
        ("ssh://git@git.example.com/a/b.git", "https://git.example.com/a/b"),
        ("http://localhost:3000/a/b.git", "http://localhost:3000/a/b"),
        ("file:///srv/git/limbeck.git", "https://localhost/srv/git/limbeck"),
        ("/srv/git/limbeck.git", "https://localhost/srv/git/limbeck"),
    ],
)
def test_a_repositorys_page_and_role(repository: str, page: str) -> None:
    assert repository_page(repository) == page
    role = repository_role(repository, "branch:main")
    assert role == f"assume:repo:{page.split('://')[1]}:branch:main"


def large(make_config: Any, datasets: int, chunks: int) -> Any:
    names = {
        "train": [f"gettext_package{number}" for number in range(datasets)],
        "mono-src": ["url_https://text.example.com/mono.[LANG].zst"],
        "mono-trg": ["url_https://text.example.com/mono.[LANG].zst"],
    }
    return make_config(datasets=names, taskcluster={"split-chunks": chunks})


def test_a_graph_of_a_thousand_tasks(deployment: Any, make_config: Any) -> None:
    definitions = deployment.set(max_dependencies=100).render(large(make_config, 100, 200))
    assert len(definitions) > 1000
    assert all(len(definition.get("dependencies", [])) <= 100 for definition in definitions.values())
    merge = definitions["corpus-merge-parallel-en-de"]["payload"]
    assert all(len(value) < 1 << 17 for value in merge["env"].values())
    assert all(len(word) < 1 << 17 for word in merge["command"][0])
    assert all(len(json.dumps(definition)) < 1 << 20 for definition in definitions.values())


@pytest.mark.slow
def test_a_graph_of_ten_thousand_tasks(deployment: Any, make_config: Any) -> None:
    began = time.monotonic()
    definitions = deployment.render(large(make_config, 1500, 1750))
    assert len(definitions) > 10_000
    assert time.monotonic() - began < 120
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20  # KB
