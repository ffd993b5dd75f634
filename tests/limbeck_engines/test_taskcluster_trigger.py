"""Starting a run on a Taskcluster deployment: credentials, git, the decision task, the action."""

import dataclasses
import datetime
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from taskcluster_place import Place, git, taskcluster_place
from taskcluster_server import CLIENT, TOKEN

from limbeck_engines.taskcluster_client import ConflictError, Deployment
from limbeck_engines.taskcluster_git import Checkout
from limbeck_engines.taskcluster_trigger import Patience, create_decision, decision_of
from pipeline.common.errors import TransientError, UserError

CONFIG = yaml.safe_dump(
    {
        "experiment": {"name": "mine", "src": "en", "trg": "de"},
        "datasets": {"train": ["gettext_one"], "devtest": ["gettext_two"], "test": ["gettext_three"]},
        "target-stage": "build-vocab",
    }
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with taskcluster_place(tmp_path, monkeypatch) as place:
        yield place


def submit(place: Place, **source: Any) -> str:
    return place.engine(**source).submit("", "mine", [], CONFIG)


def test_the_action_of_a_push_makes_the_run(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    given: list[Any] = []

    def make_tasks(group: str, config: Any) -> None:
        given.append(config)
        place.add_tasks(group, {"dataset-one": (), "build-vocab-en-de": ("dataset-one",)})

    with place.worker(make_tasks):
        group = submit(place, create_decision=True)
        engine = place.engine()
        while engine.status(group).counts["pending"] != 2:
            time.sleep(0.02)
    revision = git(place.project, "rev-parse", "HEAD")
    assert git(place.remote, "rev-parse", "main") == revision
    assert given == [yaml.safe_load(CONFIG)]
    decisions = [task for task in place.state.tasks.values() if task["tags"].get("kind") == "decision-task"]
    assert [task["payload"]["env"]["LIMBECK_REVISION"] for task in decisions] == [revision]
    row = engine.store.group(group)
    assert (row.engine, row.url) == ("taskcluster", f"{place.server.url}/tasks/groups/{group}")
    assert row.url in capsys.readouterr().out
    assert [task.label for task in engine.status(group).tasks] == ["train-action", "dataset-one", "build-vocab-en-de"]
    # The same commit once more has a decision task already.
    with place.worker():
        submit(place, create_decision=True)
    assert len([task for task in place.state.tasks.values() if task["tags"].get("kind") == "decision-task"]) == 1


def test_a_decision_task_that_a_push_makes_is_waited_for(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"no finished decision task .*not in the index yet.*--create-decision"):
        submit(place, patience=Patience(0.05, 0.01))
    assert "waiting for the decision task of this commit: not in the index yet" in capsys.readouterr().out


def test_a_decision_task_that_failed_is_named_with_its_page(place: Place) -> None:
    with place.worker():
        submit(place, create_decision=True)
    (decision,) = [one for one, task in place.state.tasks.items() if task["tags"].get("kind") == "decision-task"]
    place.state.statuses[decision]["state"] = "failed"
    with pytest.raises(UserError, match=f"{decision} ended as failed.*{place.server.url}/tasks/{decision}"):
        submit(place)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "hook", "hookGroupId": "project-x", "hookId": "gone", "hookPayload": {}}, "does not know triggering"),
        ({"name": "other"}, "offers no action train, only other"),
    ],
)
def test_an_action_that_cannot_be_had(place: Place, change: dict[str, Any], said: str) -> None:
    with place.worker():
        submit(place, create_decision=True)
    (artifact,) = [one for key, one in place.state.artifacts.items() if key[2] == "public/actions.json"]
    action = {"name": "train", "title": "Train", "description": "", "context": [], **change}
    artifact.content = json.dumps({"version": 1, "variables": {}, "actions": [action]}).encode()
    with pytest.raises(UserError, match=said):
        submit(place)


def test_an_action_may_be_a_task_template(place: Place) -> None:
    with place.worker():
        submit(place, create_decision=True)
    (artifact,) = [one for key, one in place.state.artifacts.items() if key[2] == "public/actions.json"]
    template = {
        "created": {"$fromNow": ""},
        "deadline": {"$fromNow": "1 day"},
        "taskQueueId": "limbeck/b-cpu",
        "taskGroupId": {"$eval": "ownTaskId"},
        "metadata": {"name": "train", "description": "", "owner": "a@b.c", "source": "https://example.com"},
        "payload": {"name": {"$eval": "input.experiment.name"}},
    }
    action = {"kind": "task", "name": "train", "title": "", "description": "", "context": [], "task": template}
    artifact.content = json.dumps({"version": 1, "variables": {}, "actions": [action]}).encode()
    assert place.state.tasks[submit(place)]["payload"] == {"name": "mine"}


def test_a_task_id_is_used_once(place: Place) -> None:
    deployment = Deployment()
    checkout = Checkout(place.project)
    decision = decision_of(place.project, checkout.find(), "someone@example.com", place.server.url)
    assert create_decision(deployment, decision) == create_decision(deployment, decision)
    other = dataclasses.replace(decision, definition={**decision.definition, "priority": "high"})
    with pytest.raises(ConflictError, match=r"refuses creating the decision task .* already used by another task"):
        create_decision(deployment, other)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\ntasks: []\n", "makes 0 tasks for a push of main"),
        ("version: 1\ntasks: [{$eval: nothing}]\n", "cannot be rendered for a push of main"),
        ("version: 1\ntasks: [{routes: [checks]}]\n", "no index route with the revision"),
        ("tasks: [", "cannot be rendered"),
    ],
)
def test_a_decision_task_that_nobody_could_find(place: Place, text: str, said: str) -> None:
    (place.project / ".taskcluster.yml").write_text(text)
    with pytest.raises(UserError, match=said):
        decision_of(place.project, Checkout(place.project).find(), "someone@example.com", place.server.url)


def test_nothing_is_pushed_with_changes_that_nobody_else_sees(place: Place) -> None:
    (place.project / "my.yml").write_text("a config, which is sent")
    (place.project / "pipeline").mkdir()
    (place.project / "pipeline" / "new.py").write_text("new")
    with pytest.raises(UserError, match=r"changes that are not committed \(pipeline/new.py\).*--no-push"):
        submit(place)
    (place.project / "pipeline" / "new.py").unlink()
    template = place.project / ".taskcluster.yml"
    template.write_text(template.read_text() + "# changed\n")
    with pytest.raises(UserError, match=r"changes that are not committed \(.taskcluster.yml\)"):
        submit(place)
    assert "main" not in git(place.remote, "branch")
    with pytest.raises(UserError, match=r"does not have the commit [0-9a-f]{12}: push it"):
        submit(place, push=False)
    git(place.project, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    with place.worker():
        submit(place, push=False, create_decision=True)


def test_a_branch_that_went_on_elsewhere_is_not_overwritten(place: Place, tmp_path: Path) -> None:
    git(place.project, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    git(tmp_path, "clone", "--quiet", str(place.remote), "other")
    git(tmp_path / "other", "commit", "--quiet", "--allow-empty", "-m", "Theirs")
    git(tmp_path / "other", "push", "--quiet", "origin", "main")
    theirs = git(place.remote, "rev-parse", "main")
    git(place.project, "commit", "--quiet", "--allow-empty", "-m", "Mine")
    with pytest.raises(UserError, match=r"git push .*rejected"):
        submit(place)
    assert git(place.remote, "rev-parse", "main") == theirs


def test_where_a_branch_is_pushed_to(place: Place) -> None:
    assert Checkout(place.project).target() == ("origin", "main")
    assert Checkout(place.project, branch="runs/one").target() == ("origin", "runs/one")
    git(place.project, "remote", "add", "second", "git@example.org:people/limbeck.git")
    with pytest.raises(UserError, match="no upstream: name a remote with --remote; there are origin, second"):
        Checkout(place.project).target()
    assert Checkout(place.project, remote="second").find().url == "https://example.org/people/limbeck"
    git(place.project, "checkout", "--quiet", "--detach")
    with pytest.raises(UserError, match="on no branch: name the one to push to with --branch"):
        Checkout(place.project).target()


def test_credentials_are_checked_before_anything_is_pushed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCLUSTER_ACCESS_TOKEN", "wrong" * 8)
    with pytest.raises(UserError, match=r"does not accept the credentials.*taskcluster signin"):
        submit(place)
    monkeypatch.delenv("TASKCLUSTER_ACCESS_TOKEN")
    with pytest.raises(UserError, match=rf"not signed in to {place.server.url}: type eval .*taskcluster signin"):
        submit(place)
    assert git(place.remote, "branch") == ""


def test_temporary_credentials(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskcluster import createTemporaryCredentials

    def use(*hours: float) -> None:
        start, end = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=number) for number in hours)
        made = createTemporaryCredentials(CLIENT, TOKEN, start, end, ["hooks:trigger-hook:*"], name=f"{CLIENT}/short")
        for name, key in (("CLIENT_ID", "clientId"), ("ACCESS_TOKEN", "accessToken"), ("CERTIFICATE", "certificate")):
            value = made[key]
            monkeypatch.setenv(f"TASKCLUSTER_{name}", value.decode() if isinstance(value, bytes) else value)

    use(-1, 1)
    Deployment().check_credentials()
    use(-2, -1)
    with pytest.raises(UserError, match=f"temporary credentials of {CLIENT}/short expired at .*taskcluster signin"):
        submit(place)
    # The deployment says the same to whoever asks without looking.
    deployment = Deployment()
    with pytest.raises(UserError, match=r"does not accept the credentials \(ext.certificate.expiry < now\)"):
        deployment.ask("the credentials", deployment.auth.currentScopes)
    assert git(place.remote, "branch") == ""


def test_missing_scopes_are_named(place: Place) -> None:
    with place.worker():
        submit(place, create_decision=True)
    place.server.clients[CLIENT] = (TOKEN, ["queue:create-task:*"])
    with pytest.raises(UserError, match=r"does not allow triggering the hook .* to tester: missing the scope hooks:"):
        submit(place)


def test_what_passes_is_tried_again_and_what_stays_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = Deployment()
    place.server.fail("scopes/current", times=2)
    deployment.check_credentials()
    assert len([one for one in place.server.requests if one.endswith("scopes/current")]) == 3
    place.server.fail("scopes/current", status=502, times=100)
    with pytest.raises(TransientError, match=r"fails \(the credentials, 502\)"):
        Deployment(retries=1).check_credentials()
    monkeypatch.setenv("TASKCLUSTER_ROOT_URL", "http://127.0.0.1:9")
    with pytest.raises(TransientError, match="cannot be reached"):
        Deployment(retries=0).check_credentials()


def test_no_deployment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKCLUSTER_ROOT_URL", raising=False)
    with pytest.raises(UserError, match="no Taskcluster deployment is named: type eval"):
        Deployment()
    monkeypatch.setenv("TASKCLUSTER_ROOT_URL", "taskcluster.example.org")
    with pytest.raises(UserError, match="must be a URL without a path"):
        Deployment()
