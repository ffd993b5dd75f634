"""Clean a monolingual corpus: normalise it and remove the lines that break a rule.

The same rules as for parallel corpora, less those that compare two sides. The file of removed lines holds
`rule <tab> text`, normalised.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.clean.checks import SideCheck
from pipeline.clean.normalise import normalise
from pipeline.clean.rules import MONO_RULE_NAMES, check_overrides, describe_rules, rules_for
from pipeline.clean.summary import PROGRESS_STEP, finish
from pipeline.common.command import json_argument, run_command
from pipeline.common.files import read_lines, write_lines
from pipeline.common.progress import Progress

EXAMPLE = """example:
  python -m pipeline.clean.mono --lang de --input news.de.zst --output clean.de.zst --stats clean.stats.json \\
    --removed removed.zst --rules '{"max-words": 100}'

"""


def clean(
    language: str, input_path: Path, output_path: Path, removed_path: Path, overrides: Any, dataset: str
) -> dict[str, Any]:
    """Clean one corpus and return its statistics. Overrides of rules that compare two sides are checked and ignored."""
    check = SideCheck(language, rules_for(language, check_overrides(overrides)))
    removed = dict.fromkeys(MONO_RULE_NAMES, 0)
    read = modified = 0
    progress = Progress(f"cleaning {dataset}", "lines")
    with write_lines(removed_path) as removed_file, write_lines(output_path) as kept_file:
        for raw in read_lines(input_path):
            read += 1
            if read % PROGRESS_STEP == 0:
                progress.add(PROGRESS_STEP)
            text = normalise(raw)
            fault = check.fault(text) or ("language" if check.wrong_language(text) else None)
            if fault is None:
                kept_file.write(text)
                modified += text != raw
            else:
                removed[fault] += 1
                removed_file.write(f"{fault}\t{text}")
        kept = kept_file.lines
    progress.add(read % PROGRESS_STEP)
    progress.finish()
    return {"dataset": dataset, "lang": language, "read": read, "kept": kept, "modified": modified, "removed": removed}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE + describe_rules(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lang", required=True, help="language of the corpus, as in en, pt-BR or zh")
    parser.add_argument("--input", type=Path, required=True, help="one sentence per line: plain, .gz or .zst")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--stats", type=Path, required=True, help="JSON to write: lines read, kept, removed by rule")
    parser.add_argument("--removed", type=Path, required=True, help="file for the removed lines and their rules (.zst)")
    parser.add_argument("--rules", type=json_argument, help="JSON of rule names to thresholds, or false to switch off")
    parser.add_argument("--dataset", help="name of the data set in messages and statistics (default: input's name)")
    args = parser.parse_args(arguments)
    dataset = args.dataset or args.input.name
    stats = clean(args.lang, args.input, args.output, args.removed, args.rules, dataset)
    finish(stats, args.stats, args.output)


if __name__ == "__main__":
    run_command(main)
