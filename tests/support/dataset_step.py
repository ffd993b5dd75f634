"""The step that imports a data set, run as its command line is."""

import json
from pathlib import Path
from typing import Any

from pipeline.common.files import read_lines
from pipeline.data import dataset


class DatasetStep:
    """Runs the step in a folder; afterwards its outputs are read from there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def parallel(self, name: str, *more: str, languages: tuple[str, str] = ("en", "de")) -> list[tuple[str, str]]:
        src, trg = languages
        sides = [self.folder / f"out.{language}.zst" for language in languages]
        flags = f"--src {src} --trg {trg} --output-src {sides[0]} --output-trg {sides[1]}"
        self._run(name, flags, *more)
        return list(zip(read_lines(sides[0]), read_lines(sides[1]), strict=True))

    def mono(self, name: str, *more: str, language: str = "de") -> list[str]:
        output = self.folder / f"out.{language}.zst"
        self._run(name, f"--lang {language} --output {output}", *more)
        return list(read_lines(output))

    def _run(self, name: str, flags: str, *more: str) -> None:
        dataset.main(["--dataset", name, *flags.split(), "--stats", str(self.folder / "stats.json"), *more])

    @property
    def stats(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "stats.json").read_text()))
