"""Clean a parallel corpus: normalise both sides and remove the pairs that break a rule.

All rules are applied in one pass in constant memory. The statistics say how many pairs each rule removed; the file of
removed pairs says which (`rule <tab> source <tab> target`, normalised).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.clean.checks import PairCheck
from pipeline.clean.normalise import normalise
from pipeline.clean.rules import RULE_NAMES, check_overrides, describe_rules
from pipeline.clean.summary import PROGRESS_STEP, finish
from pipeline.common.command import json_argument, run_command
from pipeline.common.corpus import read_parallel, write_columns
from pipeline.common.files import write_lines
from pipeline.common.progress import Progress

EXAMPLE = """example:
  python -m pipeline.clean.parallel --src en --trg de --input-src raw.en.zst --input-trg raw.de.zst \\
    --output-src clean.en.zst --output-trg clean.de.zst --stats clean.stats.json --removed removed.zst \\
    --rules '{"length-ratio": 4, "language": false}'

"""


def clean(
    src: str,
    trg: str,
    inputs: tuple[Path, Path],
    outputs: tuple[Path, Path],
    removed_path: Path,
    overrides: Any,
    dataset: str,
) -> dict[str, Any]:
    """Clean one corpus and return its statistics. Raises UserError on bad rules, damaged or unequal inputs."""
    check = PairCheck(src, trg, check_overrides(overrides))
    removed = dict.fromkeys(RULE_NAMES, 0)
    read = modified = 0
    progress = Progress(f"cleaning {dataset}", "pairs")
    with write_lines(removed_path) as removed_file, write_columns(*outputs) as kept_file:
        for raw_src, raw_trg in read_parallel(*inputs):
            read += 1
            if read % PROGRESS_STEP == 0:
                progress.add(PROGRESS_STEP)
            src_text, trg_text = normalise(raw_src), normalise(raw_trg)
            fault = check.fault(src_text, trg_text)
            if fault is None:
                kept_file.write(src_text, trg_text)
                modified += src_text != raw_src or trg_text != raw_trg
            else:
                removed[fault] += 1
                removed_file.write(f"{fault}\t{src_text}\t{trg_text}")
        kept = kept_file.lines
    progress.add(read % PROGRESS_STEP)
    progress.finish()
    return {
        "dataset": dataset,
        "src": src,
        "trg": trg,
        "read": read,
        "kept": kept,
        "modified": modified,
        "removed": removed,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE + describe_rules(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--src", required=True, help="source language, as in en, pt-BR or zh")
    parser.add_argument("--trg", required=True, help="target language")
    parser.add_argument("--input-src", type=Path, required=True, help="source side: plain, .gz or .zst")
    parser.add_argument("--input-trg", type=Path, required=True, help="target side, line by line with the source")
    parser.add_argument("--output-src", type=Path, required=True)
    parser.add_argument("--output-trg", type=Path, required=True)
    parser.add_argument("--stats", type=Path, required=True, help="JSON to write: lines read, kept, removed by rule")
    parser.add_argument("--removed", type=Path, required=True, help="file for the removed pairs and their rules (.zst)")
    parser.add_argument("--rules", type=json_argument, help="JSON of rule names to thresholds, or false to switch off")
    parser.add_argument("--dataset", help="name of the data set in messages and statistics (default: input's name)")
    args = parser.parse_args(arguments)
    stats = clean(
        args.src,
        args.trg,
        (args.input_src, args.input_trg),
        (args.output_src, args.output_trg),
        args.removed,
        args.rules,
        args.dataset or args.input_src.name,
    )
    finish(stats, args.stats, args.output_src, args.output_trg)


if __name__ == "__main__":
    run_command(main)
