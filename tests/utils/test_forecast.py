"""What a run will fetch, need and take, said before anything runs."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from web_server import Answer, WebServer
from workplace import Workplace

from limbeck_taskgraph.generate import generate_graph
from limbeck_taskgraph.reuse import Plan
from pipeline.common.errors import UserError
from utils.forecast import FETCH_FACTOR, Forecast, ask_sizes
from utils.outside import Question, fetched_by
from utils.plan_text import describe_plan, format_size


def with_corpus_from(web: WebServer, workplace: Workplace) -> Path:
    """A config whose corpus comes from a server."""
    uris = {side: f"{web.url}/corpus.{side}.zst" for side in ("src", "trg")}
    return workplace.write(
        continuation={"corpora": {"parallel": uris}}, datasets={**workplace.config["datasets"], "train": []}
    )


def test_what_is_fetched_is_told_with_its_size(web: WebServer, workplace: Workplace) -> None:
    web.put("/corpus.src.zst", b"x" * 1500)
    web.put("/corpus.trg.zst", b"x" * 500)
    config = with_corpus_from(web, workplace)
    done = workplace.limbeck("train", config, "--dry-run")
    assert done.code == 0, done.err
    assert re.search(r"0 tasks reused, 1 to download, 1 to run", done.out)
    assert re.search(r"  download  continuation-corpus-parallel-en-de  \[b-cpu\]  time unknown\n +never ran", done.out)
    assert "to fetch: 2, 2.0 KB" in done.out
    assert re.search(rf"1\.5 KB  {web.url}/corpus\.src\.zst", done.out)
    assert set(web.requests) == {"HEAD /corpus.src.zst", "HEAD /corpus.trg.zst"}

    plan = json.loads(workplace.limbeck("train", config, "--dry-run", "--json").out)
    assert plan["counts"] == {"reused": 0, "download": 1, "run": 1}
    assert plan["fetches"] == {f"{web.url}/corpus.src.zst": 1500, f"{web.url}/corpus.trg.zst": 500}
    vocab = plan["estimates"]["build-vocab"]["bytes"]
    assert plan["disk"]["needed"] == FETCH_FACTOR * 2000 + vocab


def test_all_that_cannot_be_had_is_named_before_anything_runs(web: WebServer, workplace: Workplace) -> None:
    web.put("/corpus.trg.zst", Answer(status=503))
    config = with_corpus_from(web, workplace)
    for flags in (["--yes"], ["--dry-run"]):
        done = workplace.limbeck("train", config, *flags)
        assert done.code == 2
        assert "2 of 2 things that this run fetches cannot be had" in done.err
        assert f"{web.url}/corpus.src.zst: the server answered 404" in done.err
        assert re.search(rf"{web.url}/corpus\.trg\.zst .*503", done.err)
    assert len(workplace.store.groups()) == 1
    asked = len(web.requests)
    done = workplace.limbeck("train", config, "--dry-run", "--no-probe")
    assert done.code == 0 and "to fetch" not in done.out
    assert len(web.requests) == asked


def test_data_sets_are_asked_for_under_all_their_addresses(web: WebServer, workplace: Workplace) -> None:
    for lang in ("en", "de"):
        web.put(f"/train.{lang}.zst", b"x" * 1000)
    datasets = {**workplace.config["datasets"], "train": [f"url_{web.url}/train.[LANG].zst", "gettext_Django"]}
    done = workplace.limbeck("train", workplace.write(datasets=datasets), "--dry-run")
    assert done.code == 0, done.err
    assert re.search(rf"2\.0 KB  url_{web.url}/train\.\[LANG\]\.zst \(en-de\)", done.out)
    assert re.search(r"unknown  gettext_Django \(en-de\)", done.out)
    assert "to fetch: 2, 2.0 KB, 1 of unknown size" in done.out
    assert ", 2 to download, " in done.out
    datasets["train"] = [f"url_{web.url}/none.[LANG].zst"]
    done = workplace.limbeck("train", workplace.write(datasets=datasets), "--dry-run")
    assert done.code == 2 and f"url_{web.url}/none.[LANG].zst" in done.err


def asks(uris: list[str]) -> dict[str, Question]:
    return fetched_by(SimpleNamespace(kind="continuation-corpus", attributes={"external": uris}))


def test_sizes_are_asked_of_servers_and_files_once_each(web: WebServer, tmp_path: Path) -> None:
    file = tmp_path / "corpus.zst"
    file.write_bytes(b"12345")
    known = web.put("/known", b"123")
    assert ask_sizes(asks([known, str(file), known])) == {known: 3, str(file): 5}
    assert web.requests == ["HEAD /known"]
    with pytest.raises(UserError, match=r"1 of 2 things.*\n  .*gone\.zst does not exist"):
        ask_sizes(asks([str(file), str(tmp_path / "gone.zst")]))


def test_credentials_are_not_shown(web: WebServer) -> None:
    questions = asks([web.url.replace("//", "//me:secret@") + "/none"])
    assert "secret" not in str(list(questions))
    with pytest.raises(UserError) as raised:
        ask_sizes(questions)
    assert "/none" in str(raised.value) and "secret" not in str(raised.value)


def test_a_disk_that_is_too_small_is_warned_of(make_config: Any) -> None:
    graph = generate_graph(make_config())
    text = describe_plan(graph, Plan(), Forecast({"https://host/a": None, "https://host/b": 10}, {}, 5 * 10**12, 10**9))
    assert "warning: the disk is too small: this run needs about 5.0 TB" in text and "only 1.0 GB are free" in text
    assert "to fetch: 2, 10 B, 1 of unknown size" in text


def test_sizes_as_people_read_them() -> None:
    assert [format_size(size) for size in (0, 999, 1000, 1_250_000, 10**12)] == [
        "0 B",
        "999 B",
        "1.0 KB",
        "1.2 MB",
        "1.0 TB",
    ]
