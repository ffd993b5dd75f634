"""The browser's engine comes from npm once, and from the cache ever after."""

import hashlib
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from browser_engine import needs_engine

from pipeline.common.errors import TransientError, UserError
from pipeline.model.browser_engine import engine_files, engine_folder, engine_version, install

CLOSED_PORT = "http://127.0.0.1:9/"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and an empty one of npm's; the engine is in the usual cache."""
    needs_engine()
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    return tmp_path / "cache"


@pytest.fixture
def unreachable(cache, monkeypatch):
    monkeypatch.setenv("npm_config_registry", CLOSED_PORT)
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    return cache


def test_the_versions_of_both_files_are_pinned_and_agree():
    lock = json.loads((install.HERE / "package-lock.json").read_text())
    wanted = json.loads((install.HERE / "package.json").read_text())["dependencies"]
    assert wanted == {"@browsermt/bergamot-translator": engine_version()}
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())


def test_a_page_gets_all_files_of_the_engine():
    needs_engine()
    files = engine_files()
    assert files["worker/bergamot-translator-worker.wasm"].read_bytes().startswith(b"\0asm")
    # The package's modules find each other by these addresses.
    assert "./worker/translator-worker.js" in files["translator.js"].read_text()
    assert "startEngine" in files["engine.js"].read_text()


def test_what_is_in_the_cache_needs_no_registry_and_no_npm(unreachable, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = unreachable / f"browser-engine-{engine_version()}"
    (folder / install.PACKAGE / "worker").mkdir(parents=True)
    assert engine_folder() == folder
    with pytest.raises(UserError, match=r"translator\.js is missing: delete .*browser-engine"):
        engine_files()


def test_an_unreachable_registry_is_worth_a_retry_and_leaves_nothing(unreachable):
    with pytest.raises(TransientError, match=r"did not reach its registry.*ECONNREFUSED"):
        engine_folder()
    assert [path.name for path in unreachable.iterdir()] == [f"browser-engine-{engine_version()}.lock"]


def test_what_is_not_what_the_lock_names_is_refused(cache, web, monkeypatch):
    package = "@browsermt%2fbergamot-translator"
    tarball = web.put("/engine.tgz", b"something else")
    versions = {engine_version(): {"name": "x", "version": engine_version(), "dist": {"tarball": tarball}}}
    address = web.put(f"/{package}", json.dumps({"name": "x", "versions": versions}).encode())
    monkeypatch.setenv("npm_config_registry", address.removesuffix(package))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    with pytest.raises(UserError, match="npm could not install the browser's engine: code EINTEGRITY"):
        engine_folder()
    assert not (cache / f"browser-engine-{engine_version()}").exists()


@pytest.mark.parametrize("mark", ["npm error", "npm ERR!"])
def test_every_npm_is_understood(cache, tmp_path, monkeypatch, mark):
    """Those of Node 18 and of early Node 20 mark errors otherwise than the one that may be installed here."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "node").write_text("#!/bin/sh\n")
    said = [f"{mark} code ENOTFOUND", f"{mark} network request to http://npm failed", f"{mark} A complete log of this"]
    (programs / "npm").write_text("#!/bin/sh\n" + "".join(f"echo '{line}' >&2\n" for line in said) + "exit 1\n")
    for program in ("node", "npm"):
        (programs / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    with pytest.raises(TransientError, match=r"not well: code ENOTFOUND; network request to http://npm failed$"):
        engine_folder()


@pytest.mark.parametrize("absent", ["node", "npm"])
def test_without_node_or_npm_it_is_said(cache, tmp_path, monkeypatch, absent):
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in {"node", "npm"} - {absent}:
        (programs / program).write_text("#!/bin/sh\nexit 1\n")
        (programs / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(UserError, match=f"no {absent} on the PATH: install Node"):
        engine_folder()


def test_several_at_once_install_it_once(cache, tmp_path, monkeypatch):
    installed = needs_engine()
    programs = tmp_path / "bin"
    programs.mkdir()
    # What npm does, slowly and countably.
    (programs / "npm").write_text(
        f"#!/bin/sh\necho once >> {tmp_path / 'runs'}\nsleep 0.5\ncp -r {installed}/node_modules .\n"
    )
    (programs / "npm").chmod(0o755)
    node = shutil.which("node")
    assert node
    monkeypatch.setenv("PATH", f"{programs}:{Path(node).parent}:/usr/bin:/bin")
    code = "from pipeline.model.browser_engine import engine_folder; print(engine_folder())"
    with ThreadPoolExecutor(3) as pool:
        runs = list(
            pool.map(
                lambda _: subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True),
                range(3),
            )
        )
    assert {run.stdout.strip() for run in runs} == {str(cache / f"browser-engine-{engine_version()}")}
    assert (tmp_path / "runs").read_text().split() == ["once"]
    wasm = "worker/bergamot-translator-worker.wasm"
    assert digest(engine_files()[wasm]) == digest(installed / install.PACKAGE / wasm)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
