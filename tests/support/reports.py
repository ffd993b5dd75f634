"""Reports for tests: figures of made-up models, and a parser that checks the page."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from pipeline.common.files import write_json, write_lines
from pipeline.evaluate.report import main

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers ids, text, scripts and whatever would be loaded from elsewhere."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += f"{data} "


def metrics(name: str, chrf: float, words: float, size: int, **others: Any) -> dict[str, Any]:
    return {
        "name": name,
        "dataset": "gettext_toy",
        "src": "en",
        "trg": "de",
        "sentences": 500,
        "chrf": {"score": chrf, "signature": "nrefs:1|nc:6|nw:0|version:2.6.0"},
        "bleu": {"score": chrf / 2, "signature": "nrefs:1|tok:13a|version:2.6.0"},
        "speed": {
            "words-per-second": words,
            "threads": 1,
            "batch-size": 16,
            "latency-ms": {"median": 1e4 / words, "p95": 3e4 / words},
            "processor": "Toy CPU",
        },
        "size-bytes": size,
        "parameters": size // 4,
        "engine": "ctranslate2 float32",
        "decoding": {"beam-size": 1, "normalize": 1.0, "max-length": 1000},
        **others,
    }


TEACHER = metrics("teacher-1", 60.0, 150.0, 240_000_000)
STUDENT = metrics("student", 58.5, 3000.0, 60_000_000)
INT8 = metrics("student-int8", 58.3, 7500.0, 16_000_000, engine="ctranslate2 int8", parameters=None)
BACKWARD = metrics("backward", 50.0, 900.0, 70_000_000, src="de", trg="en")

Report = Callable[..., tuple[dict[str, Any], Page, str]]


def report_maker(tmp_path: Path) -> Report:
    """What runs the report's step on values, which it writes to files first."""

    def write(name: str, value: Any) -> str:
        path = tmp_path / name
        if name.endswith(".json"):
            write_json(path, value)
        else:
            with write_lines(path) as writer:
                for line in value:
                    writer.write(line if isinstance(line, str) else json.dumps(line))
        return str(path)

    def run(
        metrics: tuple[dict[str, Any], ...] = (),
        funnel: tuple[Any, ...] = (),
        training: dict[str, list[Any]] | None = None,
        samples: dict[str, list[str]] | None = None,
        name: str = "toy-en-de",
        significance: tuple[Any, ...] = (),
        durations: Any = None,
    ) -> tuple[dict[str, Any], Page, str]:
        flags = ["--name", name, "--src", "en", "--trg", "de"]
        for number, value in enumerate(metrics):
            flags += ["--metrics", write(f"{number}.metrics.json", value)]
        for number, value in enumerate(significance):
            flags += ["--significance", write(f"{number}.significance.json", value)]
        if durations is not None:
            flags += ["--durations", write("durations.json", durations)]
        for number, value in enumerate(funnel):
            flags += ["--funnel", write(f"step{number}.stats.json", value)]
        for model, records in (training or {}).items():
            flags += ["--training", model, write(f"{len(model)}.jsonl", records)]
        for column, lines in (samples or {}).items():
            path = write(f"{column}.zst", lines)
            flags += [f"--{column}", path] if column in ("sources", "references") else ["--hypotheses", column, path]
        html, result = tmp_path / "report.html", tmp_path / "report.json"
        main([*flags, "--output-html", str(html), "--output-json", str(result)])
        text = html.read_text("utf-8")
        return json.loads(result.read_text("utf-8")), Page(text), text

    return run


def significance_of(old: str, new: str, **chrf: Any) -> dict[str, Any]:
    """A significance.json of one pair."""
    bleu = {"delta": -0.1, "low": -0.4, "high": 0.2, "p": 0.4, "significant": False}
    chrf["significant"] = not chrf["low"] <= 0 <= chrf["high"]
    pair = {"old": old, "new": new, "chrf": chrf, "bleu": bleu}
    return {"dataset": "gettext_toy", "src": "en", "trg": "de", "samples": 1000, "pairs": [pair]}
