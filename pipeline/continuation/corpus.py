"""Fetch a parallel corpus that was made elsewhere, check it, and write it under the pipeline's names.

Both sides must have the same number of lines. Alignments come with the tokenised text that they count (`tok-src`,
`tok-trg`: tokens with spaces between them, where a token `▁` may stand for a space of the text); they are brought over
to the words that every step here counts. A token that does not stand in its line's text, a link that leads out of a
sentence and files of unequal length are errors, with the line. A side that does not look like its language is warned
of, from a sample.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.command import json_argument, run_command
from pipeline.common.corpus import read_columns, write_columns
from pipeline.common.errors import UserError
from pipeline.common.files import count_lines, write_json
from pipeline.common.progress import Progress
from pipeline.common.remote import fetch
from pipeline.continuation.alignments import word_links
from pipeline.continuation.sample import LanguageSample

EXAMPLE = """example:
  python -m pipeline.continuation.corpus --src ru --trg en \\
    --uris '{"src": "https://host/corpus.ru.zst", "trg": "https://host/corpus.en.zst"}' \\
    --output-src corpus.ru.zst --output-trg corpus.en.zst --stats corpus.stats.json
"""

_SIDES = ("src", "trg")
_ALIGNMENT_PARTS = ("tok-src", "tok-trg", "alignments")
_PROGRESS_STEP = 10_000

logger = logging.getLogger(__name__)


def bring_corpus(
    uris: Mapping[str, str], languages: tuple[str, str], outputs: tuple[Path, Path], alignments: Path | None
) -> dict[str, Any]:
    """Fetch, check and write a corpus; returns its statistics. `alignments` is where those go, if `uris` has any.

    Raises UserError naming the address and the line of whatever does not fit, TransientError when a server cannot be
    reached now.
    """
    parts = _SIDES if "alignments" not in uris else (*_SIDES, *_ALIGNMENT_PARTS)
    if missing := [part for part in parts if part not in uris]:
        raise UserError(f"--uris has no {' and no '.join(missing)}")
    if len(parts) > 2 and alignments is None:
        raise UserError("--uris has alignments: say with --output-alignments where they go")
    with tempfile.TemporaryDirectory(prefix="limbeck-corpus-", dir=outputs[0].parent) as folder:
        paths = [Path(folder) / f"{part}.zst" if uris[part].endswith(".zst") else Path(folder) / part for part in parts]
        for part, path in zip(parts, paths, strict=True):
            logger.info(f"fetching {uris[part]}")
            fetch(uris[part], path)
        try:
            return _check_and_write(paths, uris, languages, outputs, alignments)
        except UserError as error:
            message = str(error)
            for part, path in zip(parts, paths, strict=True):
                message = message.replace(str(path), uris[part])
            raise UserError(message) from error


def _check_and_write(
    paths: Sequence[Path],
    uris: Mapping[str, str],
    languages: tuple[str, str],
    outputs: tuple[Path, Path],
    alignments: Path | None,
) -> dict[str, Any]:
    lines = count_lines(paths[0])
    if lines == 0:
        raise UserError(f"{paths[0]} is empty")
    progress = Progress("checking the corpus", "lines", lines)
    samples = [LanguageSample(language) for language in languages]
    empty = 0
    targets = outputs if len(paths) == 2 else (*outputs, alignments)
    with write_columns(*targets) as output:
        for row in _rows(paths):
            output.write(*row)
            empty += not (row[0].strip() and row[1].strip())
            for sample, text in zip(samples, row, strict=False):
                sample.add(text)
            if output.lines % _PROGRESS_STEP == 0:
                progress.add(_PROGRESS_STEP)
    progress.finish()
    if empty:
        logger.warning(f"{empty:,} of {lines:,} pairs have an empty side; training passes over them")
    for sample, other, side in zip(samples, reversed(samples), _SIDES, strict=True):
        if warning := sample.warning(other.language):
            logger.warning(f"{uris[side]}: {warning}")
    return {"read": lines, "kept": lines, "dropped": {}, "origin": dict(uris)}


def _rows(paths: Sequence[Path]) -> Iterator[tuple[str, ...]]:
    if len(paths) == 2:
        yield from read_columns(*paths)
        return
    for number, (src, trg, tok_src, tok_trg, links) in enumerate(read_columns(*paths), start=1):
        try:
            yield src, trg, word_links(links, (src, trg), (tok_src, tok_trg))
        except UserError as error:
            raise UserError(f"{paths[4]}, line {number:,}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--src", required=True, help="source language")
    parser.add_argument("--trg", required=True, help="target language")
    parser.add_argument(
        "--uris",
        type=json_argument,
        required=True,
        metavar="JSON",
        help="where the files are: src and trg, and perhaps tok-src, tok-trg and alignments",
    )
    parser.add_argument("--output-src", type=Path, required=True)
    parser.add_argument("--output-trg", type=Path, required=True)
    parser.add_argument("--output-alignments", type=Path, help="for alignments, when there are any")
    parser.add_argument("--stats", type=Path, required=True, help="JSON to write")
    args = parser.parse_args(arguments)
    stats = bring_corpus(args.uris, (args.src, args.trg), (args.output_src, args.output_trg), args.output_alignments)
    write_json(args.stats, {"dataset": args.stats.name.removesuffix(".stats.json"), **stats})


if __name__ == "__main__":
    run_command(main)
