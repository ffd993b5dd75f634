"""Show runs on a page: graphs with live states, logs, curves, scores and reports; --try: translate in the browser.

The page is for this machine only unless --host says otherwise; then nothing is shown without the token, which is
printed with the address.
"""

import argparse
import logging
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from pipeline.common.errors import UserError
from utils.common import add_runs_argument, command_parser, open_store, run_command
from utils.serve.app import make_app
from utils.serve.security import Access, is_loopback
from utils.serve.try_page import find_model

EXAMPLES = """examples:
  limbeck serve
  limbeck serve --try export-browser-en-de
  limbeck serve --try my-model/browser --port 0
  limbeck serve --host 0.0.0.0
"""
TOKEN_VARIABLE = "LIMBECK_SERVE_TOKEN"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and serve until interrupted."""
    parser = command_parser("serve", __doc__, EXAMPLES)
    add_runs_argument(parser)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free (default: %(default)s)")
    parser.add_argument(
        "--token",
        default=os.environ.get(TOKEN_VARIABLE),
        help=f"ask everyone for this token (default: ${TOKEN_VARIABLE}; else one is made, which on this machine is "
        "asked of those only who cancel or resume runs)",
    )
    parser.add_argument(
        "--try",
        dest="tried",
        metavar="MODEL",
        help="translate in the browser with this export for the browser: its folder or the one above, or a task",
    )
    return run_command(lambda: _serve(parser.parse_args(arguments)))


def _serve(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    loopback = is_loopback(options.host)
    if options.token is not None and not options.token:
        raise UserError("--token: an empty token protects nothing")
    access = Access(options.token or secrets.token_urlsafe(24), loopback, public=loopback and not options.token)
    tried = find_model(options.tried, options.runs) if options.tried else None
    # A model can be tried where nothing has run.
    runs = None if tried and open_store(options.runs) is None else Path(options.runs)
    app = make_app(runs, access, tried)
    listener = _listen(options.host, options.port)
    print(_greeting(options, listener, access), flush=True)
    # No log of requests: their addresses may hold the token.
    web.run_app(app, sock=listener, print=None, access_log=None, handle_signals=True)
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Raises UserError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)  # whoever reads the address may use it at once
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {host}, port {port}: {reason}; --port 0 takes any that is free") from error
    return listener


def _greeting(options: argparse.Namespace, listener: socket.socket, access: Access) -> str:
    host = socket.gethostname() if options.host in ("0.0.0.0", "::") else options.host
    place = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"
    if options.tried:
        lines = [f"{options.tried} translates at {place}try?token={access.token}"]
    else:
        lines = [f"{Path(options.runs).resolve()} is shown at {place}?token={access.token}"]
    if access.public:
        lines.append(f"  without the token ({place}) it is only shown: nothing can be cancelled or resumed")
    lines.append("  Ctrl-C ends it; runs go on")
    return "\n".join(lines)
