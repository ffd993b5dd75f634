"""The pages in a real browser: they change by themselves, lead to what failed, and translate."""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from chromium import CHROMIUM, SKIP_REASON, Page, open_page
from engine_graphs import make_engine, make_task
from serve_site import TOKEN, Site, serve_site
from small_student import small_pairs, small_student
from tiny_model import vocab_bytes

from limbeck_engines.local import LocalEngine
from limbeck_engines.task import Task
from pipeline.align import shortlist
from pipeline.common.corpus import write_columns
from pipeline.common.errors import TransientError, UserError
from pipeline.export import browser
from pipeline.model.browser_engine import engine_files
from pipeline.model.formats import npz
from utils.serve.try_page import find_model

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=SKIP_REASON)]


def browse(visit: Callable[[Page], Awaitable[None]], errors: bool = False) -> None:
    """Visit pages in a fresh browser. They report no errors (unless they may), and ask this machine alone."""

    async def run() -> None:
        async with open_page() as page:
            await visit(page)
            assert errors or page.wrong == []
            elsewhere = [
                url for url in page.requested if not re.match(r"(http://127\.0\.0\.1:|data:|blob:|about:)", url)
            ]
            assert elsewhere == []

    asyncio.run(run())


def of_kind(task: Task, kind: str) -> Task:
    return Task(task.task_id, task.label, {**task.definition, "tags": {"kind": kind}}, task.dependencies, task.digest)


def state_of(task: str) -> str:
    return f"document.querySelector('[data-task=\"{task}\"]').dataset.state"


def test_what_failed_is_found_in_two_clicks(site: Site) -> None:
    async def visit(page: Page) -> None:
        await page.open(f"{site.url}/?token={TOKEN}")
        await page.click("#run-broken a.title")
        await page.click("#failed a.title")
        assert await page.run("location.pathname") == "/task/fails"
        await page.until("document.getElementById('log-text').innerText.includes('error: <img src=x')")
        text = await page.text()
        assert "exit code 3" in text and "<img src=x onerror=alert(1)>" in text, "as text"
        assert await page.run("document.querySelectorAll('img').length") == 0
        # What failed can be seen in the graph, too, and tells its name when the keyboard comes to it.
        await page.open(f"{site.url}/run/broken")
        assert await page.run(state_of("fails")) == "failed"
        await page.run("document.querySelector('[data-task=fails]').focus()")
        assert await page.run("document.getElementById('hint').textContent") == "fails: failed"

    browse(visit)


def test_states_change_while_one_looks(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    engine = make_engine(tmp_path / "runs", cpus=4)
    first = make_task("first", f"echo at work; until [ -e {gate} ]; do sleep 0.05; done")
    chunks = [of_kind(make_task(f"chunk-{number}", after=(first,)), "chunk") for number in range(12)]
    bad = make_task("bad", "echo 'error: out of luck'; exit 1", (first,))
    engine.submit("group", "A run", [first, *chunks, of_kind(bad, "bad")], "")

    async def visit(page: Page) -> None:
        await page.open(f"{site.url}/")
        assert "pending" in await page.text()
        await page.run("window.same = true")
        thread.start()
        await page.until("document.querySelector('#runs .state').textContent == 'running'")
        assert await page.run("window.same"), "without loading the page again"
        await page.open(f"{site.url}/run/group")
        await page.run("window.same = true")
        await page.until(f"{state_of('first')} == 'running'")
        await page.until("document.getElementById('running').innerText.includes('at work')")
        assert "12 pending" in await page.text()
        gate.touch()
        await page.until(f"{state_of('chunk-11')} == 'completed'")
        await page.until("document.querySelector('.counts').textContent == '12 completed'")
        await page.until("document.getElementById('failed').innerText.includes('out of luck')")
        await page.until("document.getElementById('summary').innerText.includes('failed')")
        assert await page.run("window.same")

    # An engine belongs to its thread.
    thread = threading.Thread(target=lambda: make_engine(tmp_path / "runs", cpus=4).run("group"))
    with serve_site(tmp_path / "runs") as site:
        try:
            browse(visit)
        finally:
            gate.touch()
            thread.join(30)


def test_900_tasks(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "runs")
    first = of_kind(make_task("data"), "data")
    last, tasks = first, [first]
    for kind in ("translate", "extract", "score"):
        chunks = [
            of_kind(make_task(f"{kind}-{number}/300", after=(last,), task_id=f"{kind}-{number}"), kind)
            for number in range(300)
        ]
        last = of_kind(make_task(f"{kind}-all", after=tuple(chunks)), f"{kind}-all")
        tasks += [*chunks, last]
    engine.submit("group", "A large run", tasks, "")

    async def visit(page: Page) -> None:
        await page.open(f"{site.url}/run/group")
        drawn = await page.until("performance.getEntriesByName('graph')[0]?.duration")
        painted = await page.until("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
        print(f"904 tasks: first paint after {painted:.0f} ms, drawn after {drawn:.0f} ms")
        shown = "[...document.querySelectorAll('[data-task]')].filter(task => task.getBoundingClientRect().width >= 8)"
        assert await page.run(f"{shown}.length") == len(tasks)
        lines = "[...document.querySelectorAll('.lines path')].filter(line => line.getTotalLength() > 10).length"
        assert await page.run(lines) == 6
        # One box unfolded: the names of its tasks, one below the other; arrow keys go through them.
        await page.run("document.querySelector('.fold').click()")
        assert await page.run("document.querySelector('.cell').getBoundingClientRect().height") > 12
        await page.run("document.querySelector('.cell').focus()")
        await page.press("ArrowRight")
        assert await page.run("document.activeElement.dataset.label") == "translate-1/300"

    with serve_site(tmp_path / "runs") as site:
        browse(visit)


def test_curves_grow(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "runs")
    tasks = [make_task("teacher"), make_task("student")]
    engine.submit("group", "A run", tasks, "")
    logs = []
    for task in tasks:
        folder = engine.store.layout.checkpoints(task.digest)
        folder.mkdir(parents=True)
        logs.append(folder / "train.jsonl")
        logs[-1].write_text("".join(f'{{"update": {u}, "chrf": {u}.5, "lr": 0.1}}\n' for u in (10, 20, 30)))

    async def visit(page: Page) -> None:
        await page.open(f"{site.url}/curves")
        await page.until("document.getElementById('charts').dataset.drawn == 2")
        curves = "document.querySelectorAll('#charts .chart:first-of-type .scatterlayer .trace').length"
        assert await page.run(curves) == 4
        logs[0].write_text(logs[0].read_text() + '{"update": 40, "chrf": 44.5, "lr": 0.1}\n')
        points = "document.querySelector('.scatterlayer .trace .points').children.length"
        await page.until(f"{points} == 4")
        await page.run("document.querySelector('#choice input').click()")
        await page.until(f"{curves} == 2")
        assert await page.run("location.search") == "?task=student"

    with serve_site(tmp_path / "runs") as site:
        browse(visit)


def test_a_report_cannot_reach_the_pages(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "runs")
    report = (
        "<p id=p>not run</p><script>let reached = 'no'; "
        "try { reached = document.cookie } catch {} "
        "fetch('/').then(() => { reached = 'fetched' }, () => {}).finally(() => "
        "{ document.getElementById('p').textContent = `reached: ${reached}`; });</script>"
    )
    script = f"""cat > $TASK_WORKDIR/artifacts/report.html <<'END'\n{report}\nEND"""
    engine.submit("group", "A run", [of_kind(make_task("report-en-de", script), "report")], "")
    assert engine.run("group").succeeded

    async def visit(page: Page) -> None:
        await page.open(f"{site.url}/run/group?token={TOKEN}")
        await page.open(f"{site.url}/run/group/report")
        address = await page.run("document.querySelector('iframe').src")
        await page.open(address)
        await page.until("document.getElementById('p').textContent == 'reached: no'")

    with serve_site(tmp_path / "runs") as site:
        browse(visit, errors=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's folder, whose `browser` the engine can load."""
    try:
        engine_files()
    except (UserError, TransientError) as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("student")
    npz.save(small_student(), folder / "model.npz")
    (folder / "vocab.spm").write_bytes(vocab_bytes())
    for name, some in (("corpus", small_pairs(400, seed=2)), ("dev", small_pairs(20, seed=3))):
        with write_columns(folder / f"{name}.en", folder / f"{name}.de") as file:
            for pair in some:
                file.write(*pair)
    vocab = ["--src-vocab", str(folder / "vocab.spm"), "--trg-vocab", str(folder / "vocab.spm")]
    corpus = ["--corpus-src", str(folder / "corpus.en"), "--corpus-trg", str(folder / "corpus.de")]
    shortlist.main([*corpus, *vocab, "--output", str(folder / "lex.s2t.pruned.zst")])
    given = ["--model", str(folder / "model.npz"), "--shortlist", str(folder / "lex.s2t.pruned.zst")]
    given += ["--sample", str(folder / "dev.en"), str(folder / "dev.de"), "--shortlist-best", "8"]
    browser.main([*given, *vocab, "--src", "en", "--trg", "de", "--output-dir", str(folder / "browser")])
    return folder


def test_a_student_is_tried(exported: Path, tmp_path: Path) -> None:
    pairs = small_pairs(8, seed=9)
    text = "\n".join(source for source, _ in pairs)
    found: dict[str, Any] = {}

    async def visit(page: Page) -> None:
        await page.open(f"{site.url}/")
        assert await page.run("location.pathname") == "/try", "there is nothing else to show"
        await page.until("document.getElementById('state').textContent == 'ready'")
        await page.run("document.getElementById('source').focus()")
        await page.type(text)
        await page.until(f"document.getElementById('target').textContent.split('\\n').length == {len(pairs)}")
        found["text"] = await page.run("document.getElementById('target').textContent")
        found["speed"] = await page.run("document.getElementById('speed').textContent")
        # What stands already is not translated again, what is new is.
        words = await page.run("document.getElementById('words').textContent")
        await page.type("\n" + pairs[0][0])
        await page.until(f"document.getElementById('target').textContent.split('\\n').length == {len(pairs) + 1}")
        assert await page.run("document.getElementById('words').textContent") == words

    with serve_site(None, tried=find_model(str(exported), tmp_path)) as site:
        browse(visit)
    translations = found["text"].split("\n")
    assert sacrebleu.corpus_chrf(translations, [[target for _, target in pairs]]).score > 60
    assert int(found["speed"].replace(",", "")) > 10
    print(f"{found['speed']} words/s")


def test_what_can_be_tried(exported: Path, engine: LocalEngine, tmp_path: Path) -> None:
    runs = engine.store.layout.root
    for place in (exported, exported / "browser"):
        assert find_model(str(place), runs).languages == ("en", "de")
    task = make_task("export-browser", f"cp -r {exported}/browser $TASK_WORKDIR/artifacts/")
    engine.submit("export", "A run", [task], "")
    assert engine.run("export").succeeded
    with serve_site(runs, tried=find_model("export-browser", runs)) as site:
        assert "/try" in site.page("/") and "en → de" in site.page("/run/export")
        described = site.json("/try/model.json")
        for place in (described["model"], described["shortlist"], *described["vocabs"]):
            assert site.get(place).content
        wasm = site.get("/try/engine/worker/bergamot-translator-worker.wasm")
        assert wasm.headers["Content-Type"] == "application/wasm"
        assert "'wasm-unsafe-eval'" in site.get("/try/worker.js").headers["Content-Security-Policy"]
        for path in ("/try/files/metadata", "/try/engine/package.json", "/try/engine/../metadata.json"):
            assert site.get(path).status_code == 404
    for name, message in (
        ("made", "made .made. has no export for the browser"),
        ("fails", "is failed, so it has no artifacts yet"),
        ("nothing", "there is no such folder, and no finished task nothing"),
        (str(tmp_path), "holds an export for the browser"),
    ):
        with pytest.raises(UserError, match=message):
            find_model(name, runs)
