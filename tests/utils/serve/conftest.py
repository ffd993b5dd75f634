"""A runs folder with runs of small tasks that the local engine has really run, and the site that shows it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_graphs import fetch, make_engine, make_task
from serve_site import Site, serve_site

from limbeck_engines.local import LocalEngine

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with one finished run, `done`, of two tasks, and one, `broken`, in which a task fails.

    Of `done`, `made` makes both sides of a corpus, and `read` reads one of them.
    """
    runs = tmp_path_factory.mktemp("finished") / "runs"
    engine = make_engine(runs)
    script = (
        'python3 -c "import gzip, zstandard, os, pathlib; '
        "folder = pathlib.Path(os.environ['TASK_WORKDIR'], 'artifacts'); "
        "(folder / 'corpus.en.zst').write_bytes(zstandard.compress(b'a <b>bold</b> word\\nmore\\n')); "
        "(folder / 'corpus.de.zst').write_bytes(zstandard.compress(b'ein fettes Wort\\nmehr\\n')); "
        "(folder / 'notes.txt.gz').write_bytes(gzip.compress(b'packed notes\\n')); "
        "(folder / 'model.bin').write_bytes(bytes(range(256)) * 40); "
        "(folder / 'page.html').write_text('<script>parent.stolen = document.cookie</script>')\""
    )
    made = make_task("made", f"{script}; echo made {HOSTILE!r}; printf '10%%\\r20%%\\r30%%\\n'")
    made.definition["extra"] = {"limbeck": {"languages": ["en", "de"]}}
    read = make_task("read", "cat $MOZ_FETCHES_DIR/corpus.en.zst > /dev/null", (made,), [fetch(made, "corpus.en.zst")])
    engine.submit("done", "A finished run", [made, read], "key: <value>\n")
    assert engine.run("done").succeeded
    fails = make_task("fails", f"echo 'error: {HOSTILE}' >&2; exit 3", (made,))
    after = [make_task(f"after-{number}", after=(fails,)) for number in range(3)]
    engine.submit("broken", f"Broken {HOSTILE}", [fails, *after, make_task("alone")], "")
    assert not engine.run("broken").succeeded
    return runs


@pytest.fixture
def engine(finished_runs: Path, tmp_path: Path) -> LocalEngine:
    """An engine with a copy of the finished runs, to do with what one likes."""
    shutil.copytree(finished_runs, tmp_path / "runs")
    return make_engine(tmp_path / "runs")


@pytest.fixture(scope="session")
def site(finished_runs: Path) -> Iterator[Site]:
    """The finished runs, only to be read."""
    with serve_site(finished_runs) as site:
        yield site


@pytest.fixture
def own_site(engine: LocalEngine) -> Iterator[Site]:
    """The runs of `engine`."""
    with serve_site(engine.store.layout.root) as site:
        yield site
