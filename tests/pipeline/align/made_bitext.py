"""A bitext made by rule, whose true alignment is known."""

import random
from pathlib import Path

from pipeline.common.files import write_lines

Link = tuple[int, int]


def make(pairs: int, seed: int = 1, reverse: bool = True) -> tuple[list[str], list[str], list[set[Link]]]:
    """Sentences of 3 to 12 words out of 300, as frequent as in language. The target has the words in reverse order, two
    words for each tenth source word, none for each eleventh, and a particle without a source here and there."""
    draw = random.Random(seed)
    weights = [1 / (rank + 2) for rank in range(300)]
    src_lines, trg_lines, gold = [], [], []
    for _ in range(pairs):
        words = draw.choices(range(300), weights, k=draw.randint(3, 12))
        target: list[str] = []
        links: set[Link] = set()
        places = list(enumerate(words))
        for place, word in reversed(places) if reverse else places:
            translation = [f"t{word}", f"u{word}"] if word % 10 == 3 else [f"t{word}"] if word % 11 else []
            for part in translation:
                links.add((place, len(target)))
                target.append(part)
            if draw.random() < 0.1:
                target.append("particle")
        src_lines.append(" ".join(f"s{word}" for word in words))
        trg_lines.append(" ".join(target))
        gold.append(links)
    return src_lines, trg_lines, gold


def write(path: Path, lines: list[str]) -> Path:
    with write_lines(path) as file:
        for line in lines:
            file.write(line)
    return path


def f1(found: list[set[Link]], gold: list[set[Link]]) -> float:
    common = sum(len(a & b) for a, b in zip(found, gold, strict=True))
    return 2 * common / (sum(map(len, found)) + sum(map(len, gold)))
