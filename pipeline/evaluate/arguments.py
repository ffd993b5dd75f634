"""The flags that every evaluation of a model has."""

import argparse
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.evaluate.speed import SECONDS


def add_test_set_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose translations of what are scored, by which model of COMET, and where the outputs go."""
    parser.add_argument("--name", required=True, help="the model's name in the report; student-… for one of its forms")
    parser.add_argument("--src", required=True, help="source language")
    parser.add_argument("--trg", required=True, help="target language")
    parser.add_argument("--dataset", required=True, help="the test set's name in the report")
    parser.add_argument("--references-src", type=Path, required=True, help="the test set's source sentences")
    parser.add_argument("--references-trg", type=Path, required=True, help="their reference translations")
    parser.add_argument(
        "--comet", metavar="MODEL", help="also score by COMET: a checkpoint's path, or a name on Hugging Face's hub"
    )
    parser.add_argument("--output-prefix", type=Path, required=True, help="path that the outputs' names begin with")


def add_speed_argument(parser: argparse.ArgumentParser) -> None:
    """How long speed is measured; `check_speed` looks at what was given."""
    parser.add_argument(
        "--speed-seconds",
        type=float,
        default=SECONDS,
        help=f"about how long speed is measured (default: {SECONDS:g}); 0 leaves out speed and memory",
    )


def check_speed(seconds: float) -> None:
    """Raises UserError for a time that cannot be."""
    if seconds < 0:
        raise UserError(f"--speed-seconds must not be negative, found {seconds:g}")
