import io
import time
from pathlib import Path

import pytest
from engine_graphs import make_engine, make_task
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from limbeck_engines.display import Display, PlainDisplay, RunningTask, TerminalDisplay, open_display
from limbeck_engines.logs import failure_reason, last_line


def run(tmp_path: Path, display: Display) -> None:
    engine = make_engine(tmp_path, cpus=1)
    broken = make_task("broken", "echo 'translating: 5 of 9'; sleep 0.4; echo 'error: [bold] is no language'; exit 1")
    later = make_task("later", after=(broken,))
    engine.submit("g", "an example", [make_task("fine"), broken, later], "")
    assert not engine.run("g", display).succeeded


def test_plain_lines(tmp_path: Path) -> None:
    stream = io.StringIO()
    run(tmp_path, PlainDisplay(stream, interval=0.1))

    lines = [line[9:] for line in stream.getvalue().splitlines()]
    assert lines[0] == "an example: 0 of 3 done, 3 waiting"
    assert "started    fine" in lines
    assert any(line.startswith("done       fine after 0.") for line in lines)
    assert "running    broken: translating: 5 of 9" in lines
    assert any(line.startswith("FAILED     broken after 0.") and "[bold] is no language" in line for line in lines)
    assert lines[-4].startswith("an example: failed after") and lines[-4].endswith("1 of 3 done, 1 failed, 1 skipped")
    assert lines[-3] == "  failed: broken: [bold] is no language"
    assert lines[-2] == "    skipped because of it: later"
    assert lines[-1] == "  nothing that is done is lost; go on with: limbeck resume g"


def test_plain_progress_lines_keep_their_interval(tmp_path: Path) -> None:
    log = tmp_path / "live.log"
    log.write_text("step 1\n")
    stream = io.StringIO()
    display = PlainDisplay(stream, interval=3600)
    display.started("task", 0)
    for _ in range(5):
        display.refresh({}, [RunningTask("task", time.time(), log)])
    assert stream.getvalue().count("\n") == 1


def test_a_terminal_shows_counts_and_the_last_line_of_each_running_task(tmp_path: Path) -> None:
    stream = io.StringIO()
    run(tmp_path, TerminalDisplay(Console(file=stream, force_terminal=True, width=100, color_system=None)))

    shown = stream.getvalue()
    assert "0 of 3 done, 1 running, 2 waiting" in shown
    assert "translating: 5 of 9" in shown
    assert "[bold] is no language" in shown
    assert "go on with: limbeck resume g" in shown
    assert shown.endswith("\n") and "\x1b[?25h" in shown, "the cursor is visible again"


def test_a_closed_pipe_does_not_stop_the_work(tmp_path: Path) -> None:
    stream = io.StringIO()
    stream.close()
    run(tmp_path, PlainDisplay(stream))


def test_the_display_suits_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert isinstance(open_display(io.StringIO()), PlainDisplay)


def test_the_last_line_of_a_progress_bar(tmp_path: Path) -> None:
    log = tmp_path / "live.log"
    log.write_bytes(b"begin\n\x1b[32m10%\x1b[0m\r20%\r30%\r\n\n[limbeck] a note of the engine\n")
    assert last_line(log) == "30%"
    assert last_line(tmp_path / "none") == ""


@given(st.binary(max_size=200), st.integers(-64, 255).filter(bool))
def test_any_log_gives_a_reason_of_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, exit_code: int
) -> None:
    log = tmp_path_factory.mktemp("log") / "live.log"
    log.write_bytes(content)
    reason = failure_reason(log, exit_code)
    assert reason and "\n" not in reason and "\x1b" not in reason
