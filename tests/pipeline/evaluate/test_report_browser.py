"""The report's page in a real browser: it loads nothing, says no error, and its tables sort."""

import base64
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from reports import BACKWARD, INT8, STUDENT, TEACHER, Report, metrics, significance_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: install the package chromium to run this"),
]
WIDTH, HEIGHT = 1200, 4000

# Before the page's own script: gathers whatever goes wrong.
WATCH = """<script>
window.wrong = [];
addEventListener("error", event => wrong.push(String(event.message || event.target.src)), true);
addEventListener("unhandledrejection", event => wrong.push(String(event.reason)));
addEventListener("securitypolicyviolation", event => wrong.push("policy: " + event.blockedURI));
const say = console.error; console.error = (...words) => { wrong.push(words.join(" ")); say(...words); };
</script>"""
# After it: clicks on every heading of every table, twice, and writes down the order of values that this gives.
CLICK = """<script>
addEventListener("load", () => {
  const tables = [...document.querySelectorAll("table")].map(table =>
    [...table.tHead.rows[0].cells].map(heading => {
      const orders = [1, 2].map(() => {
        heading.querySelector("button").click();
        const values = [...table.tBodies[0].rows].map(row => row.cells[heading.cellIndex].dataset.value);
        return [heading.getAttribute("aria-sort"), values];
      });
      return [heading.textContent, orders];
    }));
  const loaded = performance.getEntriesByType("resource").map(entry => entry.name);
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const text = [...document.querySelectorAll("svg text")].filter(node => node.getBBox().width === 0).length;
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = JSON.stringify({wrong, loaded, tables, wide, text});
  document.body.append(result);
});
</script>"""

SCREENFUL = 800
# Of a picture: its size, and how many colours every screenful of it has.
COUNT_COLORS = f"""<script>
addEventListener("load", () => {{
  const picture = document.querySelector("img"), canvas = document.createElement("canvas");
  const [width, height] = [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const colors = [];
  for (let top = 0; top < height; top += {SCREENFUL}) {{
    const pixels = context.getImageData(0, top, width, {SCREENFUL}).data;
    colors.push(new Set(new Uint32Array(pixels.buffer)).size);
  }}
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = JSON.stringify([[width, height], colors]);
  document.body.append(result);
}});
</script>"""


def browse(page: Path, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page in headless Chromium with a fresh profile, without any network."""
    assert CHROMIUM
    command = [
        CHROMIUM,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
        *("--disable-quic", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={folder / 'net.json'}",
        f"--window-size={WIDTH},{HEIGHT}",
        "--enable-logging=stderr",
        *flags,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def requested(folder: Path) -> set[str]:
    """The URLs that the network stack was asked for, without what Chromium asks its makers for by itself."""
    text = (folder / "net.json").read_text("utf-8")
    # A browser that is closed early leaves the list of events open.
    log = json.loads(text if text.rstrip().endswith("}") else text.rstrip().rstrip(",") + "]}")
    urls = {event["params"].get("url", "") for event in log["events"] if isinstance(event.get("params"), dict)}
    return {url for url in urls if url and not (urlsplit(url).hostname or "").endswith(".google.com")}


@pytest.fixture
def page(report: Report, tmp_path: Path) -> Path:
    """A whole report with several models, some figures missing, and all sections."""
    samples = {
        "sources": [f"Sentence <b>{number}</b> & more" for number in range(30)],
        "references": [f"Satz Nummer {number}" for number in range(30)],
        "teacher-1": [f"Satz Nummer {number}" for number in range(30)],
        "student-int8": [f"Satz {'Nummer' if number % 3 else 'nichts'} {number}" for number in range(30)],
    }
    models = (TEACHER, STUDENT, INT8, metrics("other", 58.0, 1000.0, 50_000_000, speed=None), BACKWARD)
    upper = tuple({**entry, "dataset": "gettext_aug-upper_toy"} for entry in (TEACHER, STUDENT))
    training = [{"update": 10 * step, "chrf": 5.0 + step, "train-cost": 9 / step, "best": True} for step in range(1, 9)]
    report(
        metrics=(*models, *upper),
        funnel=({"dataset": "d", "src": "en", "trg": "de", "read": 90, "kept": 60, "removed": {"too-long": 30}},),
        training={"student": training},
        samples=samples,
        significance=(significance_of("teacher-1", "student", delta=-1.5, low=-1.9, high=-1.1, p=0.001),),
        durations={"train-teacher-model": 7200, "evaluate": 100},
    )
    return tmp_path / "report.html"


def sort_key(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value.lower()


def test_the_page_in_a_browser(page: Path, tmp_path: Path) -> None:
    watched = tmp_path / "watched.html"
    text = page.read_text("utf-8").replace("<head>", f"<head>{WATCH}", 1)
    watched.write_text(text.replace("</body>", f"{CLICK}</body>"), "utf-8")
    done = browse(watched, tmp_path, "--dump-dom")
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, "the page's scripts did not come to their end"
    result: dict[str, Any] = json.loads(unescape(found[1]))

    assert result["wrong"] == []
    assert "CONSOLE" not in done.stderr
    assert result["loaded"] == []
    assert {url for url in requested(tmp_path) if url.startswith(("http:", "https:", "ws"))} == set()
    assert result["wide"] <= 0, "the page is wider than its window"
    assert result["text"] == 0, "a label of a chart is invisible"

    assert len(result["tables"]) == 7
    for headings in result["tables"]:
        for title, orders in headings:
            assert [direction for direction, _ in orders] == ["descending", "ascending"], title
            for descending, (_, values) in zip((True, False), orders, strict=True):
                filled = [sort_key(value) for value in values if value != ""]
                assert filled == sorted(filled, reverse=descending), title  # type: ignore[type-var]
                assert values[len(filled) :] == [""] * (len(values) - len(filled)), "what is missing comes last"


def test_a_policy_forbids_whatever_would_be_loaded(page: Path, tmp_path: Path) -> None:
    """The judge of the test above: a picture from elsewhere is noticed, and not fetched."""
    spoilt = tmp_path / "spoilt.html"
    text = page.read_text("utf-8").replace("<head>", f"<head>{WATCH}", 1)
    picture = '<img src="http://127.0.0.1:9/picture.png">'
    spoilt.write_text(text.replace("</body>", f"{picture}{CLICK}</body>"), "utf-8")
    done = browse(spoilt, tmp_path, "--dump-dom")
    assert "policy: http://127.0.0.1:9/picture.png" in done.stdout
    assert not any("picture.png" in url for url in requested(tmp_path))


def test_a_screenshot_shows_a_whole_page(page: Path, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    browse(page, tmp_path, f"--screenshot={picture}")
    data = base64.b64encode(picture.read_bytes()).decode()
    judge = tmp_path / "judge.html"
    judge.write_text(f'<img src="data:image/png;base64,{data}">{COUNT_COLORS}', "utf-8")
    found = re.search(r'<pre id="result">(.*?)</pre>', browse(judge, tmp_path, "--dump-dom").stdout)
    assert found
    size, colors = json.loads(found[1])
    assert size == [WIDTH, HEIGHT]
    # From top to bottom there is something to see in every screenful: text and charts, not one colour.
    assert len(colors) == HEIGHT // SCREENFUL and min(colors) > 20, colors
