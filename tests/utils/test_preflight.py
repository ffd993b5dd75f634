"""What a preflight finds, asked of servers on this machine that answer like the real ones."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import yaml
from web_server import WebServer

from limbeck_engines.machine import Machine
from limbeck_taskgraph.generate import generate_graph
from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.common.errors import UserError
from utils import preflight_machine
from utils.preflight_hub import check_hub_model, hub_model
from utils.preflight_sources import Sources, check_continuation, check_languages, dataset_size

SECRET = "hf_thisIsNobodysBusiness"


def preflight(config: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "utils.cli",
        "preflight",
        str(config),
        "--runs",
        str(config.parent / "runs"),
        *flags,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def findings(config: Path, **environment: str) -> dict[str, tuple[str, str]]:
    """subject -> level, message."""
    done = preflight(config, "--json", **environment)
    found = json.loads(done.stdout)
    assert done.returncode == (2 if found["error"] else 0)
    return {finding["subject"]: (finding["level"], finding["message"]) for finding in found["findings"]}


@pytest.fixture
def files(web: WebServer, tmp_path: Path) -> dict[str, Any]:
    """Sections of a config whose data sets are all there: files of the web and of this machine."""
    for language, size in (("en", 3_000_000), ("de", 4_000_000)):
        web.put(f"/train.{language}.zst", web.answer(announced=size))
        (tmp_path / f"dev.{language}").write_text("Hallo\n")
    dev = f"file_{tmp_path}/dev.[LANG]"
    return {"datasets": {"train": [f"url_{web.url}/train.[LANG].zst"], "devtest": [dev], "test": [dev]}}


@pytest.fixture
def write(make_config: Any, tmp_path: Path) -> Any:
    def write_config(**sections: Any) -> Path:
        path = tmp_path / "config.yml"
        path.write_text(yaml.safe_dump(make_config.values(**sections)))
        return path

    return write_config


def test_everything_is_there(web: WebServer, files: dict[str, Any], write: Any, tmp_path: Path) -> None:
    path = write(**files)
    done = preflight(path)
    assert done.returncode == 0, done.stdout
    assert f"ok       url_{web.url}/train.[LANG].zst (en-de): 7.0 MB" in done.stdout
    assert "ok       experiment.trg: de: the language identifier knows it" in done.stdout
    assert "0 errors, " in done.stdout.splitlines()[-1]
    assert "4 times the 7.0 MB to fetch" in done.stdout
    # Sizes were asked for, and nothing else; and nothing was begun.
    assert {request.split()[0] for request in web.requests} == {"HEAD"}
    assert not (tmp_path / "runs").exists()


def test_what_is_missing_is_an_error(web: WebServer, files: dict[str, Any], write: Any, tmp_path: Path) -> None:
    files["datasets"]["train"].append(f"url_{web.url}/other.[LANG].zst")
    files["datasets"]["test"] = ["file_nowhere.[LANG].gz"]
    files["datasets"]["mono-src"] = ["news-crawl_news.1066"]
    found = findings(write(**files), LIMBECK_NEWS_CRAWL_URL=web.url)
    level, message = found[f"url_{web.url}/other.[LANG].zst (en-de)"]
    assert (level, "other.en.zst" in message) == ("error", True)
    assert found["news-crawl_news.1066 (en)"][0] == "error"
    nowhere = next(subject for subject in found if "nowhere" in subject)
    assert found[nowhere][0] == "error" and "does not exist" in found[nowhere][1]
    assert found[f"url_{web.url}/train.[LANG].zst (en-de)"] == ("ok", "7.0 MB")


def test_distributions_are_asked_of_the_package_index(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{web.url}/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    page = f'<a href="{web.url}/f/messages-1.0-py3-none-any.whl">messages-1.0-py3-none-any.whl</a>'.encode()
    web.put("/simple/messages/", web.answer(page, content_type="text/html"))
    assert dataset_size("gettext_messages", ("en", "de")) is None
    assert dataset_size("gettext_PyYAML", ("en", "de")) is None  # installed
    with pytest.raises(UserError, match=r"no version 2\.0"):
        dataset_size("gettext_messages==2.0", ("en", "de"))


def test_what_flores_has_is_known_without_asking(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_FLORES_URL", web.put("/flores.tar.gz", web.answer(announced=25_000_000)))
    assert dataset_size("flores_dev", ("en", "de")) == 25_000_000
    with pytest.raises(UserError, match="FLORES-200 does not have br"):
        dataset_size("flores_dev", ("en", "br"))


def continuation_findings(config: TrainingConfig, sources: Sources | None = None) -> dict[str, tuple[str, str]]:
    found = check_continuation(config, sources or Sources())
    return {finding.subject: (finding.level, finding.message) for finding in found}


def test_files_of_continuation_are_asked_for(web: WebServer, make_config: Any, tmp_path: Path) -> None:
    model, checkpoint = f"{web.url}/model", f"{web.url}/checkpoint"
    web.put("/model/final.model.npz.best-chrf.npz", b"12345678")
    for name in ("model.npz", "progress.yml"):
        web.put(f"/checkpoint/{name}", b"1234")
    web.put("/corpus.en.zst", b"12")
    (tmp_path / "corpus.de.zst").write_bytes(b"123")
    (tmp_path / "opus").mkdir()
    (tmp_path / "opus" / "decoder.yml").write_text("models: []\n")
    config = make_config(
        experiment={"teacher-ensemble": 2},
        continuation={
            "vocab": {"src": str(tmp_path / "none.spm"), "trg": str(tmp_path / "none.spm")},
            "models": {
                "teacher": {"urls": [model, f"{web.url}/elsewhere"], "mode": "use"},
                "backwards": {"url": str(tmp_path / "opus"), "mode": "use", "type": "opusmt"},
                "student": {"url": checkpoint, "mode": "continue"},
            },
            "corpora": {"parallel": {"src": f"{web.url}/corpus.en.zst", "trg": str(tmp_path / "corpus.de.zst")}},
        },
    )
    sources = Sources()
    found = continuation_findings(config, sources)
    models = "continuation.models"
    assert found[f"{models}.teacher.urls.0 (final.model.npz.best-chrf.npz)"] == ("ok", "8 B")
    assert found[f"{models}.teacher.urls.1 (final.model.npz.best-chrf.npz)"][0] == "error"
    assert found[f"{models}.backwards.url (decoder.yml)"][0] == "ok"
    assert found[f"{models}.student.url (progress.yml)"] == ("ok", "4 B")
    level, message = found[f"{models}.student.url (optimizer.pt)"]
    assert level == "error" and "mode: init" in message
    assert found["continuation.corpora.parallel.src"] == ("ok", "2 B")
    assert found["continuation.corpora.parallel.trg"] == ("ok", "3 B")
    assert found["continuation.vocab.src"][0] == "error"
    assert sum(sources.sizes) == 8 + 4 + 4 + 2 + 3 + len("models: []\n")


def test_addresses_of_corpora_of_one_side(web: WebServer, make_config: Any) -> None:
    uri = web.put("/mono.en.zst", b"123")
    config = make_config(continuation={"corpora": {"mono-src": uri, "mono-trg": {"trg": f"{web.url}/none"}}})
    found = continuation_findings(config)
    assert found["continuation.corpora.mono-src"] == ("ok", "3 B")
    assert found["continuation.corpora.mono-trg"][0] == "error"


def test_a_server_that_is_down_is_an_error_now(web: WebServer, make_config: Any) -> None:
    uri = web.put("/shortlist", web.answer(status=503))
    level, message = continuation_findings(make_config(continuation={"shortlist": uri}))["continuation.shortlist"]
    assert level == "error" and "503" in message


@pytest.fixture
def hub(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    """The Hugging Face hub, with the public model org/model and the gated one org/gated."""
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    for name in ("ENDPOINT", "_HF_DEFAULT_ENDPOINT"):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", web.url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", web.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    sha = "a" * 40
    for model in ("org/model", "org/gated"):
        info = {"_id": "1", "id": model, "sha": sha, "private": False, "siblings": []}
        web.put(f"/api/models/{model}", web.answer(json.dumps(info).encode(), content_type="application/json"))
    there = web.answer(b"{}", headers={"X-Repo-Commit": sha, "ETag": '"1"'})
    web.put(f"/org/model/resolve/{sha}/config.json", there)
    refused = web.answer(b"", status=403, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
    web.put(f"/org/gated/resolve/{sha}/config.json", refused)
    web.put("/api/models/org/none", web.answer(b"", status=401, headers={"X-Error-Code": "RepoNotFound"}))
    return web


def test_models_of_the_hub(hub: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    found = {model: next(check_hub_model("here", f"org/{model}", None)) for model in ("model", "gated", "none")}
    assert found["model"].level == "ok", found["model"].message
    assert "aaaaaaaaaaaa" in found["model"].message
    assert found["gated"].level == "error" and "gated: set HF_TOKEN" in found["gated"].message
    assert found["none"].level == "error" and "shows no model org/none" in found["none"].message
    assert next(check_hub_model("here", "not a model", None)).level == "error"


def test_addresses_of_the_hub(tmp_path: Path) -> None:
    assert hub_model("org/model", "v1") == ("org/model", "v1")
    assert hub_model("https://huggingface.co/org/model/tree/main", None) == ("org/model", "main")
    assert hub_model("https://example.org/models/one", None) is None
    assert hub_model(str(tmp_path), None) is None
    assert hub_model("./not/there", None) is None


def test_a_token_of_the_hub_is_never_shown(hub: WebServer, write: Any, files: dict[str, Any]) -> None:
    config = write(
        **files,
        continuation={"models": {"teacher": {"url": "org/gated", "mode": "use", "type": "huggingface"}}},
    )
    done = preflight(config, "--json", HF_TOKEN=SECRET, HF_ENDPOINT=hub.url)
    gated = [finding for finding in json.loads(done.stdout)["findings"] if "org/gated" in finding["message"]]
    assert [finding["level"] for finding in gated] == ["error"]
    assert "the token in HF_TOKEN has no access" in gated[0]["message"]
    assert SECRET not in done.stdout + done.stderr


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    finding = next(check_hub_model("here", "org/model", None))
    assert finding.level == "error" and "cannot be reached" in finding.message


def test_languages(make_config: Any) -> None:
    def found(**experiment: Any) -> list[tuple[str, str]]:
        return [(finding.level, finding.message) for finding in check_languages(make_config(experiment=experiment))]

    assert all(level == "ok" for level, _ in found())
    japanese = found(src="ja")
    assert any("without spaces" in message for _, message in japanese)
    assert any("without upper case" in message for _, message in japanese)
    assert not any("without upper case" in message for _, message in found(src="ru"))
    assert not any("without upper case" in message for _, message in found(src="ja", augmentation="none"))
    assert any(level == "error" and '"language": false' in message for level, message in found(src="qqq"))
    silent = found(src="qqq", cleaning={"default": {"language": False}})
    assert [level for level, _ in silent].count("error") == 0
    assert any(level == "warning" for level, _ in silent)


def test_a_disk_without_room(make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = generate_graph(make_config())
    usage = namedtuple("usage", "total used free")

    def level(free: int) -> str:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free, 0, free))
        return next(preflight_machine.check_disk(graph, Sources([2 * 10**9]), tmp_path / "not" / "yet")).level

    assert [level(free) for free in (10**9, 5 * 10**9, 10**12)] == ["error", "warning", "ok"]


def test_machines(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(machine: Machine, **sections: Any) -> list[Any]:
        monkeypatch.setattr(Machine, "detect", classmethod(lambda cls: machine))
        config = make_config(**sections)
        graph = generate_graph(config)
        return [*preflight_machine.check_machine(graph), *preflight_machine.check_gpus(config, graph)]

    small = found(Machine(1, 10**9, ()), marian_args={"decoding-teacher": {"precision": "float16"}})
    assert any(finding.level == "warning" and "memory" in finding.message for finding in small)
    assert any(finding.subject == "gpus" and finding.level == "warning" for finding in small)
    (problem,) = (finding for finding in small if finding.level == "error")
    assert "marian-args.decoding-teacher: float16 needs a GPU" in problem.message
    # What needs no GPU does not warn of having none.
    data_only = found(Machine(8, 64 * 10**9, ()), target_stage="corpus-merge-parallel")
    assert [finding.level for finding in data_only] == ["ok"]


def test_a_gpu_that_torch_cannot_use(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "detect", classmethod(lambda cls: Machine(8, 64 * 10**9, ("0",))))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = make_config()
    found = list(preflight_machine.check_gpus(config, generate_graph(config)))
    assert [(finding.subject, finding.level) for finding in found] == [("gpus", "ok"), ("gpus", "error")]


def test_credentials_and_packages(make_config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    config = make_config(wandb_publication=True, continuation={"shortlist": "s3://bucket/lex.zst"})

    def found() -> dict[str, str]:
        lines = list(preflight_machine.check_credentials(config))
        assert SECRET not in "".join(line.message for line in lines)
        return {line.subject: line.level for line in lines}

    assert found() == {"wandb-publication": "error", "s3://": "warning"}
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRET)
    assert found() == {"wandb-publication": "ok", "s3://": "ok"}
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert found()["wandb-publication"] == "ok"
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {SECRET}\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert found()["wandb-publication"] == "ok"

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    packages = {line.subject: line for line in preflight_machine.check_packages(config)}
    assert {line.level for line in packages.values()} == {"error"}
    assert "pip install 'limbeck[cloud]'" in packages["s3:// in continuation"].message
    assert "pip install 'limbeck[tracking]'" in packages["wandb-publication"].message


def test_a_config_that_is_wrong_is_said_first(write: Any) -> None:
    done = preflight(write(experiment={"trg": "xx"}))
    assert done.returncode == 2
    assert "experiment.trg" in done.stderr
    assert done.stdout == ""
