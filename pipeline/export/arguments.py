"""The flags that every export has."""

import argparse
from pathlib import Path

from pipeline.model.formats import lexicon


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of the shortlist, and what the model card tells besides."""
    parser.add_argument(
        "--shortlist-first",
        type=int,
        default=lexicon.FIRST,
        help="so many first ids of the target vocabulary are always candidates (default: %(default)s)",
    )
    parser.add_argument(
        "--shortlist-best",
        type=int,
        default=lexicon.BEST,
        help="so many candidates are kept for each source piece (default: %(default)s)",
    )
    for flag, what in (
        ("--metrics", "metrics.json files of its evaluation, and of the models that it is compared with"),
        ("--significance", "significance.json files of those models"),
    ):
        parser.add_argument(flag, type=Path, nargs="+", action="extend", default=[], metavar="FILE", help=what)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the training config (YAML), for metadata.json; left out if absent"
    )
