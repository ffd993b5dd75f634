"""The frame around every step's command line."""

import argparse
import errno
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pipeline.common.errors import EXIT_FAILED, EXIT_RETRY, TransientError, UserError


def run_command(main: Callable[[Sequence[str] | None], None], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a step's `main` and exit: 0 when done, 75 when it is worth a retry, 1 with one sentence otherwise."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        main(arguments)
    except UserError as error:
        _fail(str(error), EXIT_FAILED)
    except TransientError as error:
        _fail(str(error), EXIT_RETRY)
    except MemoryError:
        _fail("out of memory: give the task a worker with more memory, or smaller batches or chunks", EXIT_FAILED)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail(f"the disk is full while writing {error.filename or 'an output'}: free some space", EXIT_FAILED)
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}", EXIT_FAILED)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    sys.exit(0)


def json_argument(text: str) -> Any:
    """Type of a flag that takes JSON (lists, mappings), or `@path` of a JSON file."""
    try:
        return json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON, nor @ and the path of a JSON file: {error}") from error


def _raise_interrupt(signum: int, frame: FrameType | None) -> None:
    # SIGTERM unwinds like Ctrl-C, so that temporary files are removed and checkpoints are closed.
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
