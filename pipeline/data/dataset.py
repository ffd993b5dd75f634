"""Import a data set: one sentence per line, both sides of a parallel corpus in step.

Names of data sets:
  gettext_Django                      real translations from the message catalogues (.po, .mo) of a Python distribution:
  gettext_Django==5.2.19              the installed one, or fetched from the package index that pip is configured with
  url_https://host/corpus.[LANG].zst  text files from the web (http, https, file), one for each language
  file_/data/corpus.[LANG].gz         text files of this machine; relative paths, ~ and $VARIABLES are fine
  opus_Books/v1                       a corpus of OPUS, parallel or monolingual
  sacrebleu_wmt19                     a test set that sacreBLEU knows, in either direction
  flores_dev, flores_devtest          FLORES-200
  mtdata_Statmt-europarl-10-deu-eng   a data set of mtdata's index; needs the extra `mtdata`
  tmx_https://host/memory.tmx.gz      a translation memory
  news-crawl_news.2021                a year of News Crawl, monolingual
  hplt_mono/v3.0                      HPLT's web crawls, monolingual

A parallel one may have an augmentation in its name, to test models on: flores_aug-upper_devtest; aug-title, aug-upper,
aug-punct, aug-typos, aug-noise, aug-inline-noise, aug-mix, aug-mix-cjk.

Files are plain, gzip or zstd, told apart by content. [LANG] stands for the language; a monolingual data set may do
without it. Line ends and tabs inside a text become spaces; nothing else is cleaned here, save what is particular to
message catalogues (placeholders, HTML, keyboard accelerators). Set LIMBECK_CACHE to a folder to keep what is fetched.
--max-sentences takes an even, seeded sample in the original order, the same lines on both sides; of hplt_ it is the
first so many of a random order.
"""

import argparse
import itertools
import logging
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.command import run_command
from pipeline.common.corpus import write_columns
from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.common.progress import Progress
from pipeline.data.augmented import augmented
from pipeline.data.importers import load_importer
from pipeline.data.names import split_augmentation, split_dataset
from pipeline.data.source import Source

EXAMPLE = """examples:
  python -m pipeline.data.dataset --dataset gettext_Django --src en --trg de \\
    --output-src corpus.en.zst --output-trg corpus.de.zst --stats corpus.stats.json
  python -m pipeline.data.dataset --dataset 'url_https://example.org/news.[LANG].zst' --lang de \\
    --output mono.de.zst --max-sentences 1000000 --stats mono.stats.json
"""

_TO_SPACE = dict.fromkeys(map(ord, "\t\n\r\v\f"), " ")
_PROGRESS_STEP = 10_000

logger = logging.getLogger(__name__)


def import_dataset(
    dataset: str,
    languages: tuple[str, ...],
    outputs: Sequence[Path],
    max_sentences: int | None,
    seed: int,
    min_doc_score: float | None = None,
) -> dict[str, Any]:
    """Import one data set for one language or a pair, and return its statistics.

    `min_doc_score` counts for the importers whose documents have scores (hplt). Raises UserError when there is nothing
    in it, and whatever its importer raises.
    """
    importer, rest = split_dataset(dataset)
    augmentation, _ = split_augmentation(dataset.partition("_")[2])
    if augmentation and len(languages) == 1:
        raise UserError(f"data set {dataset}: aug-{augmentation} is for parallel data sets, to test models on")
    settings = {"min_doc_score": min_doc_score} if importer == "hplt" and min_doc_score is not None else {}
    progress = Progress(f"importing {dataset}", "lines")
    with tempfile.TemporaryDirectory(prefix="limbeck-data-") as folder, write_columns(*outputs) as writer:
        source: Source = load_importer(importer).open_source(rest, languages, Path(folder), **settings)
        progress.total = max_sentences if source.total is None else min(source.total, max_sentences or source.total)
        rows = sample(source, max_sentences, seed)
        if augmentation and len(languages) == 2:
            rows = augmented(rows, augmentation, languages, seed)
        for row in rows:
            # Most lines hold nothing to replace, and the question is much cheaper than the replacing.
            writer.write(*(text if text.isprintable() else text.translate(_TO_SPACE) for text in row))
            if writer.lines % _PROGRESS_STEP == 0:
                progress.add(_PROGRESS_STEP)
        kept = writer.lines
        if not kept:
            dropped = ", ".join(f"{reason} {count:,}" for reason, count in source.dropped.items() if count)
            raise UserError(f"data set {dataset} has no lines{f' left (dropped: {dropped})' if dropped else ''}")
    progress.add(kept % _PROGRESS_STEP)
    progress.finish()
    left = 0 if source.total is None or augmentation else source.total - kept  # noise comes on top
    dropped_counts = {**source.dropped, "max-sentences": left}
    return {
        "dataset": dataset,
        "read": kept + sum(dropped_counts.values()),
        "kept": kept,
        "dropped": {reason: count for reason, count in dropped_counts.items() if count},
        "origin": source.origin,
    }


def sample(source: Source, size: int | None, seed: int) -> Iterator[tuple[str, ...]]:
    """Rows of a source in order: all of them, or an even random sample of `size` when there are more.

    Selection sampling (Knuth, TAOCP 2, 3.4.2, algorithm S): every sample is equally likely and nothing is kept. Of a
    source of unknown length, the first rows are taken.
    """
    if size is None or (source.total is not None and size >= source.total):
        yield from source.rows
        return
    if source.total is None:
        yield from itertools.islice(source.rows, size)
        return
    generator = random.Random(seed)
    wanted = size
    for number, row in enumerate(source.rows):
        if not wanted:
            return
        if generator.random() * (source.total - number) < wanted:
            wanted -= 1
            yield row


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True, help="importer_name, see above")
    parser.add_argument("--src", help="source language of a parallel data set: en, pt_BR, zh_hant …")
    parser.add_argument("--trg", help="target language of a parallel data set")
    parser.add_argument("--output-src", type=Path, help="file for the source side (.zst)")
    parser.add_argument("--output-trg", type=Path, help="file for the target side (.zst)")
    parser.add_argument("--lang", help="language of a monolingual data set")
    parser.add_argument("--output", type=Path, help="file for a monolingual data set (.zst)")
    parser.add_argument("--max-sentences", type=_positive, help="take a random sample of so many lines")
    parser.add_argument(
        "--min-doc-score", type=float, help="leave out documents of a lower score, 0 to 10 (hplt_ only; default: none)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample (default: 1)")
    parser.add_argument("--stats", type=Path, required=True, help="JSON to write: counts, version and checksums")
    args = parser.parse_args(arguments)
    parallel = {"--src": args.src, "--trg": args.trg, "--output-src": args.output_src, "--output-trg": args.output_trg}
    mono = {"--lang": args.lang, "--output": args.output}
    languages: tuple[str, ...]
    outputs: tuple[Path, ...]
    if all(parallel.values()) and not any(mono.values()):
        languages, outputs = (args.src, args.trg), (args.output_src, args.output_trg)
        naming = {"src": args.src, "trg": args.trg}
        if args.src == args.trg:
            parser.error(f"--src and --trg are both {args.src}: a parallel data set has two languages")
    elif all(mono.values()) and not any(parallel.values()):
        languages, outputs, naming = (args.lang,), (args.output,), {"lang": args.lang}
    else:
        parser.error(f"give either {', '.join(parallel)} or {', '.join(mono)}")
    stats = import_dataset(args.dataset, languages, outputs, args.max_sentences, args.seed, args.min_doc_score)
    write_json(args.stats, stats | naming)
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in stats["dropped"].items())
    logger.info(f"{args.dataset}: {stats['kept']:,} lines of {stats['read']:,}; left out: {dropped or 'none'}")


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


if __name__ == "__main__":
    run_command(main)
