"""Who gets an answer, who may change a run, and what a page lets in."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from serve_site import TOKEN, Site, serve_site

from limbeck_engines.local import LocalEngine
from utils.serve.command import main
from utils.serve.security import is_loopback


@pytest.fixture(scope="module")
def guarded(finished_runs: Path) -> Iterator[Site]:
    """The site as it is where other machines reach it."""
    with serve_site(finished_runs, public=False, loopback=False) as site:
        yield site


@pytest.mark.parametrize("path", ["/", "/run/done", "/task/made", "/api/queue/v1/task/made", "/static/style.css"])
def test_nothing_is_shown_without_the_token(guarded: Site, path: str) -> None:
    assert guarded.get(path).status_code == 401
    assert guarded.get(path, headers={"Cookie": f"{guarded.cookie}x"}).status_code == 401
    assert guarded.get(path + "?token=another").status_code == 401
    assert guarded.get(path, headers={"Authorization": b"Bearer \xff"}).status_code == 401
    assert guarded.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert guarded.get(path, headers={"Cookie": guarded.cookie}).status_code == 200


def test_the_first_address_leaves_a_cookie_and_no_token(guarded: Site) -> None:
    first = guarded.get(f"/run/done?token={TOKEN}&x=1")
    assert first.status_code == 303
    assert first.headers["Location"] == "/run/done?x=1"
    cookie = first.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    with requests.Session() as session:
        shown = session.get(f"{guarded.url}/?token={TOKEN}", timeout=30)
        assert shown.status_code == 200 and "token" not in shown.url
        assert session.get(f"{guarded.url}/run/done", timeout=30).status_code == 200


def test_the_redirect_stays_on_this_server(guarded: Site) -> None:
    location = guarded.get(f"//evil.example/?token={TOKEN}").headers["Location"]
    assert location.startswith("/") and not location.startswith("//")


def test_programs_give_the_token_in_the_address(guarded: Site) -> None:
    """A continuation's source is an address; it keeps its query."""
    answer = guarded.get(f"/api/queue/v1/task/made/artifacts/public/build/notes.txt.gz?token={TOKEN}")
    assert answer.status_code == 200 and "Set-Cookie" not in answer.headers


def test_a_name_that_was_made_to_mean_this_machine_gets_no_answer(site: Site) -> None:
    port = site.url.rpartition(":")[2]
    for host in (f"evil.example:{port}", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example"):
        assert site.get("/", headers={"Host": host}).status_code == 403, host
    for host in (f"localhost:{port}", "127.0.0.1:9999", "[::1]:80", "127.0.0.2"):
        assert site.get("/", headers={"Host": host}).status_code == 200, host


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": ""},
        {"Cookie": "limbeck=wrong"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"X-Limbeck-Action": ""},
    ],
)
def test_only_own_pages_with_the_token_change_something(
    own_site: Site, engine: LocalEngine, headers: dict[str, str]
) -> None:
    assert own_site.act("/run/broken/resume", **headers).status_code == 403
    assert engine.store.group("broken").state == "failed"
    assert own_site.get("/run/broken/resume").status_code in (404, 405)


def test_a_run_is_resumed(own_site: Site, engine: LocalEngine) -> None:
    before = engine.store.task("fails").run
    answer = own_site.act("/run/broken/resume")
    assert (answer.status_code, answer.text) == (200, "resumed")
    assert engine.store.task("fails").run != before


def test_a_run_is_cancelled(own_site: Site, engine: LocalEngine) -> None:
    answer = own_site.act("/run/broken/cancel")
    assert (answer.status_code, answer.text) == (200, "cancelled")
    assert own_site.act("/run/nothing/cancel").status_code == 404


@pytest.mark.parametrize("path", ["/", "/run/done", "/task/made", "/curves", "/compare", "/nothing"])
def test_pages_let_nothing_in(site: Site, path: str) -> None:
    headers = site.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_what_a_task_wrote_cannot_act_for_the_reader(site: Site) -> None:
    answer = site.get("/api/queue/v1/task/made/artifacts/public/build/page.html")
    assert answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts") and "allow-same-origin" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/api/queue/v1/task/made/artifacts/public/../../../../../limbeck.sqlite",
        "/api/queue/v1/task/made/artifacts/..%2f..%2f..%2f..%2flimbeck.sqlite",
        "/api/queue/v1/task/made/artifacts//etc/passwd",
        "/api/queue/v1/task/made/runs/0/artifacts/../live.log",
        "/api/queue/v1/task/..%2f..%2flocks/artifacts/x",
        "/static/../security.py",
        "/static/..%2fsecurity.py",
        "/task/made/log.txt?run=../0",
    ],
)
def test_only_artifacts_are_handed_out(site: Site, path: str) -> None:
    with requests.Session() as session:
        request = requests.Request("GET", site.url + path).prepare()
        request.url = site.url + path  # as it stands: requests would tidy it up
        answer = session.send(request, timeout=30, allow_redirects=False)
    assert answer.status_code in (400, 403, 404), answer.text[:200]


def test_tokens_that_protect_nothing_are_refused(engine: LocalEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", str(engine.store.layout.root), "--token", ""]) == 2
    assert "empty token" in capsys.readouterr().err


def test_an_address_that_cannot_be_had(engine: LocalEngine, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    taken = site.url.rpartition(":")[2]
    assert main(["--runs", str(engine.store.layout.root), "--port", taken]) == 2
    assert re.search(rf"cannot listen on 127.0.0.1, port {taken}: .+--port 0", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_which_addresses_are_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
