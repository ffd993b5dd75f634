"""What a worker runs of a definition: sources, environment, inputs, secrets, the stage; and its exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsone
import pytest
import yaml
import zstandard
from decision_services import Services
from slugid import nice

from limbeck_taskgraph import taskcluster_worker
from limbeck_taskgraph.catalogue import ROOT
from limbeck_taskgraph.taskcluster_worker import durations, prepare, secret_values
from limbeck_taskgraph.worker_payload import DOCKER_WORKDIR
from pipeline.common.errors import TransientError, UserError

PROJECT = ROOT.parent
SCRIPT = ROOT / "scripts" / "with-environment"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository with the project as it stands here, for workers that have this environment; and its revision."""
    folder = tmp_path_factory.mktemp("repository")
    ignored = shutil.ignore_patterns("__pycache__", "node_modules")
    for name in ("pipeline", "taskcluster"):
        shutil.copytree(PROJECT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", ".taskcluster.yml"):
        shutil.copy(PROJECT / name, folder)
    for name, key in ((".taskcluster.yml", 'prepared_environment: ""'), ("taskcluster/config.yml", "prepared: null")):
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(key) == 1
        (folder / name).write_text(text.replace(key, f"{key.partition(':')[0]}: {sys.prefix}"), encoding="utf-8")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    revision = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return folder, revision


class Worker:
    """Runs definitions of generic-worker as it does: commands in an empty folder, then artifacts."""

    def __init__(self, services: Services, folder: Path) -> None:
        self.services, self.folder = services, folder

    def create(self, task_id: str, task: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """Have the queue accept a task, and run it."""
        self.services.tasks[task_id], self.services.states[task_id] = task, "pending"
        return self.run(task_id)

    def run(self, task_id: str) -> subprocess.CompletedProcess[str]:
        task = self.services.tasks[task_id]
        work = self.folder / task_id
        work.mkdir()
        for mount in task["payload"].get("mounts", []):
            cache = self.folder / mount["cacheName"]
            cache.mkdir(exist_ok=True)
            (work / mount["directory"]).symlink_to(cache)
        own = {"TASK_ID": task_id, "TASK_WORKDIR": str(work), "TASKCLUSTER_ROOT_URL": self.services.url}
        if task["payload"].get("features", {}).get("taskclusterProxy"):
            own["TASKCLUSTER_PROXY_URL"] = self.services.url
        given = {"PATH": "/usr/bin:/bin", "NO_PROXY": "127.0.0.1", "HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
        [command] = task["payload"]["command"]
        done = subprocess.run(
            command, cwd=work, env=given | task["payload"]["env"] | own, capture_output=True, text=True
        )
        if done.returncode == 0:
            for artifact in task["payload"]["artifacts"]:
                for path in (work / artifact["path"]).rglob("*"):
                    if path.is_file():
                        name = f"{artifact['name']}/{path.relative_to(work / artifact['path'])}"
                        self.services.artifacts[task_id, name] = path.read_bytes()
            self.services.finish(task_id)
        return done


def write_corpora(folder: Path) -> dict[str, list[str]]:
    """Data sets of two sentences for each use."""
    texts = {
        "en": "One sentence stands here.\nAnother one follows it.\n",
        "de": "Ein Satz steht hier.\nNoch einer folgt.\n",
    }
    for use, number in (("train", 1), ("devtest", 2), ("test", 3)):
        for language, text in texts.items():
            content = text.replace(".", f" {number}.").encode()
            (folder / f"{use}.{language}.zst").write_bytes(zstandard.compress(content))
    return {use: [f"file_{folder}/{use}.[LANG].zst"] for use in ("train", "devtest")} | {"test": []}


def test_from_a_push_to_a_finished_run(
    make_config: Any, services: Services, repository: tuple[Path, str], tmp_path: Path
) -> None:
    sources, revision = repository
    address = f"file://{sources}"
    worker = Worker(services, tmp_path / "worker")
    worker.folder.mkdir()

    page = f"https://localhost{sources}"
    event = {"ref": "refs/heads/master", "after": revision, "pusher": {"email": "a@example.com"}}
    event["repository"] = {"clone_url": address, "html_url": page, "name": sources.name}
    decision_id = nice()
    context = {"tasks_for": "github-push", "event": event, "as_slugid": lambda name: decision_id}
    template = yaml.safe_load((sources / ".taskcluster.yml").read_text(encoding="utf-8"))
    [decision] = jsone.render(template["tasks"], context)
    done = worker.create(decision.pop("taskId"), decision)
    assert done.returncode == 0, done.stderr
    assert len(services.tasks) == 1

    words = [sys.executable, "-m", "limbeck_taskgraph.hook", "--repository", address]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{sources}:{sources}/taskcluster"}
    printed = subprocess.run(words, env=environment, cwd=sources, capture_output=True, text=True, check=True)
    hook = json.loads(printed.stdout)
    values = make_config.values(datasets=write_corpora(tmp_path), target_stage="corpus-merge-parallel")

    def train() -> tuple[str, dict[str, str]]:
        offered = json.loads(services.artifacts[decision_id, "public/actions.json"])["actions"][0]
        assert f"{offered['hookGroupId']} {offered['hookId']}" == printed.stderr.strip()
        payload = jsone.render(offered["hookPayload"], {"input": values, "taskId": None, "taskGroupId": decision_id})
        own = nice()
        done = worker.create(own, jsone.render(hook["task"], {"payload": payload, "taskId": own}))
        assert done.returncode == 0, done.stderr
        made = {services.tasks[task_id]["metadata"]["name"]: task_id for task_id in services.group(own)}
        return own, {name: task_id for name, task_id in made.items() if task_id != own}

    run, made = train()
    kinds = ["dataset", "corpus-clean-parallel", "corpus-merge-parallel"]
    for label in sorted(made, key=lambda label: [label.startswith(kind) for kind in kinds].index(True)):
        done = worker.run(made[label])
        assert done.returncode == 0, done.stderr
    merged = services.artifacts[made["corpus-merge-parallel-en-de"], "public/build/corpus.en.zst"]
    assert b"One sentence stands here 1." in zstandard.ZstdDecompressor().decompressobj().decompress(merged)
    assert yaml.safe_load(services.artifacts[run, "public/training-config.yml"])["datasets"] == values["datasets"]

    again, nothing = train()
    assert nothing == {}
    labels = json.loads(services.artifacts[again, "public/label-to-taskid.json"])
    assert labels == {"corpus-merge-parallel-en-de": made["corpus-merge-parallel-en-de"]}

    # An input that has gone is no crash.
    services.artifacts = {key: value for key, value in services.artifacts.items() if not key[1].endswith(".de.zst")}
    failed = worker.create(nice(), services.tasks[made["corpus-merge-parallel-en-de"]])
    assert failed.returncode == 1
    assert ".de.zst" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_repository_that_cannot_be_had_is_tried_again_later(
    deployment: Any, make_config: Any, tmp_path: Path
) -> None:
    task = deployment.render(make_config(), head_repository=f"file://{tmp_path}/nothing")["build-vocab-en-de"]
    done = subprocess.run(
        task["payload"]["command"][0],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin", **task["payload"]["env"]}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 75
    assert f"the repository file://{tmp_path}/nothing cannot be fetched" in done.stderr


def test_an_environment_is_built_once_and_anew_for_other_packages(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "taskcluster" / "scripts").mkdir(parents=True)
    script = shutil.copy(SCRIPT, checkout / "taskcluster" / "scripts")
    (checkout / "pyproject.toml").write_text("one")
    # Stands for an interpreter: its virtual environments need no network.
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/bash\necho "$@" >> "$RECORD"\n'
        '[ "$1" = --version ] && { echo Python 3.11; exit; }\n'
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python3"; fi\n'
    )
    python.chmod(0o755)
    pip = tmp_path / "fail"
    record = tmp_path / "record"
    environment = {
        "PATH": "/usr/bin:/bin",
        "TASK_WORKDIR": str(tmp_path),
        "RECORD": str(record),
        "LIMBECK_PYTHON": str(python),
    }

    def run(**more: str) -> tuple[int, list[str], str]:
        record.write_text("")
        words = ["bash", script, "bash", "-c", "command -v python3; echo $PYTHONPATH"]
        done = subprocess.run(words, env=environment | more, capture_output=True, text=True)
        return done.returncode, record.read_text().splitlines(), done.stdout

    code, calls, printed = run(LIMBECK_EXTRAS="a,b", LIMBECK_PIP_ARGUMENTS="--index-url https://x")
    assert code == 0
    assert any(call == f"-m pip install --quiet --index-url https://x {checkout}[a,b]" for call in calls)
    assert "-m pip uninstall --quiet --yes limbeck" in calls
    found, path = printed.split()
    assert found.startswith(str(tmp_path / "environment"))
    assert path == f"{checkout}:{checkout}/taskcluster"
    assert run(LIMBECK_EXTRAS="a,b", LIMBECK_PIP_ARGUMENTS="--index-url https://x") == (0, ["--version"], printed)
    (checkout / "pyproject.toml").write_text("two")
    code, calls, printed = run()
    assert code == 0
    assert any("install" in call for call in calls)
    assert len(list((tmp_path / "environment").iterdir())) == 1
    # An installation that broke off is no environment.
    python.write_text(python.read_text().replace("if [", '[ "$3" = install ] && exit 1; if [', 1))
    (checkout / "pyproject.toml").write_text("three")
    assert run()[0] == 75
    assert run()[0] == 75
    assert not pip.exists()
    code, _, _ = run(LIMBECK_ENVIRONMENT=str(tmp_path / "none"))
    assert code == 1


@pytest.fixture
def task(tmp_path: Path, services: Services) -> dict[str, str]:
    """The environment of a task."""
    return {
        "TASK_WORKDIR": str(tmp_path),
        "TASKCLUSTER_ROOT_URL": services.url,
        "TASK_ID": nice(),
        "LIMBECK_RUN": nice(),
    }


def fetch(task_id: str, name: str, dest: str = "") -> dict[str, Any]:
    return {"artifact": name, "task": task_id, "dest": dest, "extract": False}


def test_inputs_come_from_the_queue_files_and_folders(task: dict[str, str], services: Services, tmp_path: Path) -> None:
    maker = nice()
    names = [f"public/build/model/part-{number:02}.bin" for number in range(12)]
    services.artifacts |= {(maker, name): name.encode() for name in [*names, "public/build/a file.txt"]}
    task["MOZ_FETCHES"] = json.dumps([fetch(maker, "public/build/a file.txt", "one/1")])
    task["MOZ_FETCHES_2"] = json.dumps([fetch(maker, "public/build/model/", "two")])
    environment = prepare(task, "true")
    assert (tmp_path / "fetches" / "one" / "1" / "a file.txt").read_text() == "public/build/a file.txt"
    folder = tmp_path / "fetches" / "two" / "model"
    assert {f"public/build/model/{path.name}" for path in folder.iterdir()} == set(names)
    assert not [name for name in environment if name.startswith("MOZ_FETCHES_2") or name == "MOZ_FETCHES"]
    assert environment["MOZ_FETCHES_DIR"] == str(tmp_path / "fetches")
    assert (tmp_path / "artifacts").is_dir()
    assert Path(environment["LIMBECK_CHECKPOINTS"]).is_dir()


@pytest.mark.parametrize(
    ("fetches", "message"),
    [
        ([fetch("maker", "public/build/none")], "none"),
        ([fetch("maker", "public/build/none/")], "has no artifact below it"),
        ([fetch("maker", "public/a", "../..")], "leads out of its folder"),
        ([fetch("maker", "public/../a")], "leads out of its folder"),
        ([fetch("maker", "public/a"), fetch("maker", "public/b/a")], "two inputs have the same name"),
    ],
)
def test_inputs_that_cannot_be_had(
    fetches: list[dict[str, Any]], message: str, task: dict[str, str], services: Services
) -> None:
    services.artifacts |= {("maker", "public/a"): b"", ("maker", "public/b/a"): b""}
    task["MOZ_FETCHES"] = json.dumps(fetches)
    with pytest.raises(UserError, match=message):
        prepare(task, "true")


def test_a_queue_that_is_away_is_no_fault_of_the_task(task: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taskcluster_worker, "_RETRIES", 0)
    monkeypatch.setattr("pipeline.common.download.RETRY_DELAYS", ())
    task |= {"TASKCLUSTER_ROOT_URL": "http://127.0.0.1:1", "MOZ_FETCHES": json.dumps([fetch("maker", "public/a/")])}
    with pytest.raises(TransientError, match="the artifacts of task maker cannot be had now"):
        prepare(task, "true")
    task["MOZ_FETCHES"] = json.dumps([fetch("maker", "public/a")])
    with pytest.raises(TransientError):
        prepare(task, "true")


def test_secrets_become_variables(services: Services) -> None:
    services.secrets["project/limbeck/level-1/wandb"] = {"api-key": "hush"}
    wanted = {"WANDB_API_KEY": {"secret": "project/limbeck/level-1/wandb", "key": "api-key"}}
    proxy = {"TASKCLUSTER_PROXY_URL": services.url}
    assert secret_values(wanted, proxy) == {"WANDB_API_KEY": "hush"}
    assert secret_values({}, {}) == {}
    with pytest.raises(UserError, match="has no key token; it has api-key"):
        secret_values({"X": {"secret": "project/limbeck/level-1/wandb", "key": "token"}}, proxy)
    with pytest.raises(UserError, match=r"the secret other cannot be had \(there is none\)"):
        secret_values({"X": {"secret": "other", "key": "token"}}, proxy)
    with pytest.raises(UserError, match="the task needs taskclusterProxy"):
        secret_values(wanted, {})


def test_a_task_that_asks_about_its_run_is_told(task: dict[str, str], services: Services) -> None:
    services.artifacts[task["LIMBECK_RUN"], "public/training-config.yml"] = b"experiment: {}\n"
    first, second = nice(), nice()
    services.tasks |= {
        first: {"extra": {"limbeck": {"stage": "dataset"}}, "dependencies": [task["LIMBECK_RUN"]]},
        second: {"extra": {"limbeck": {"stage": "dataset"}}, "dependencies": [first]},
        task["LIMBECK_RUN"]: {},
        task["TASK_ID"]: {"extra": {"limbeck": {"stage": "report"}}, "dependencies": [first, second, nice()]},
    }
    services.states |= dict.fromkeys((first, second), "completed") | {task["TASK_ID"]: "running"}
    environment = prepare(task, 'x --config "$LIMBECK_CONFIG" --durations "$LIMBECK_DURATIONS"')
    assert Path(environment["LIMBECK_CONFIG"]).read_text() == "experiment: {}\n"
    assert json.loads(Path(environment["LIMBECK_DURATIONS"]).read_text()) == {"dataset": 60.0}
    assert durations(second, taskcluster_worker._queue(task)) == {"dataset": 60.0}


@pytest.mark.parametrize("command", ["echo $PWD", 'train --checkpoint-dir "$LIMBECK_CHECKPOINTS"'])
def test_only_commands_that_keep_checkpoints_have_them_published(
    command: str, task: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    became: list[Any] = []
    monkeypatch.setattr(os, "environ", task)
    monkeypatch.setattr(os, "execvpe", lambda *words: became.append(words) or 0)
    monkeypatch.chdir(tmp_path)
    assert taskcluster_worker.main([command[:5], command[5:]]) == 0
    [(program, words, environment)] = became
    publishes = "CHECKPOINTS" in command
    wrapper = ["python3", "-m", "limbeck_engines.taskcluster_checkpoints", "--"]
    assert words == [*(wrapper if publishes else []), "bash", str(tmp_path / "stage.sh")]
    assert (tmp_path / "stage.sh").read_text() == command
    assert program == words[0]
    assert environment["LIMBECK_CHECKPOINTS"] == str(tmp_path / "checkpoints")


def test_the_images_are_what_definitions_for_docker_worker_expect() -> None:
    base, train = ((ROOT / "docker" / name / "Dockerfile").read_text() for name in ("base", "train"))
    assert f"WORKDIR {DOCKER_WORKDIR}\n" in base
    assert "ENV LIMBECK_ENVIRONMENT=/opt/limbeck\n" in base
    assert "-m venv /opt/limbeck " in base
    assert " git " in base
    for line in (*base.splitlines(), *train.splitlines()):
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (PROJECT / source).exists(), line
