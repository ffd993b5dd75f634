"""Fetch the SentencePiece vocabularies of an earlier run, check them, and write them under the pipeline's names."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline.common.command import run_command
from pipeline.common.errors import UserError
from pipeline.common.remote import fetch
from pipeline.model.vocab import Vocab

EXAMPLE = """example:
  python -m pipeline.continuation.vocab --src-uri https://host/vocab.ru.spm --trg-uri https://host/vocab.en.spm \\
    --output-src vocab.ru.spm --output-trg vocab.en.spm
"""

logger = logging.getLogger(__name__)


def bring_vocab(uri: str, output: Path) -> Vocab:
    """Fetch one vocabulary. Raises UserError when it is not one that models can be trained with here."""
    partial = output.with_name(f".{output.name}.partial")
    try:
        fetch(uri, partial)
        vocab = Vocab.load(partial)
        partial.replace(output)
    except UserError as error:
        raise UserError(str(error).replace(str(partial), uri)) from error
    finally:
        partial.unlink(missing_ok=True)
    logger.info(f"{uri}: {len(vocab):,} pieces")
    return vocab


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--src-uri", required=True, help="where the vocabulary of the source language is")
    parser.add_argument("--trg-uri", required=True, help="of the target language; the same for a joint vocabulary")
    parser.add_argument("--output-src", type=Path, required=True)
    parser.add_argument("--output-trg", type=Path, required=True)
    args = parser.parse_args(arguments)
    bring_vocab(args.src_uri, args.output_src)
    bring_vocab(args.trg_uri, args.output_trg)


if __name__ == "__main__":
    run_command(main)
