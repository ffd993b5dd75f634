"""`limbeck serve` as a person starts it, and what it finds out of the machine."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from limbeck_engines.local import LocalEngine
from utils.serve import resources
from utils.serve.command import TOKEN_VARIABLE


def start(*arguments: str) -> tuple[subprocess.Popen[str], str, list[str]]:
    """The server, the address that it prints, and the lines that it prints."""
    environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    server = subprocess.Popen(
        [sys.executable, "-m", "utils.serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    assert server.stdout
    lines: list[str] = []
    while not (lines and "Ctrl-C" in lines[-1]):
        lines.append(server.stdout.readline())
        assert lines[-1], "".join(lines)
    found = re.search(r"http://\S+", lines[0])
    assert found, lines
    return server, found[0], lines


def stop(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGINT)
    rest, _ = server.communicate(timeout=20)
    assert server.returncode == 0, rest
    assert "Traceback" not in rest


def test_it_is_for_this_machine_unless_told_otherwise(engine: LocalEngine) -> None:
    server, address, lines = start("--runs", str(engine.store.layout.root))
    plain = address.partition("?")[0]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=\S{32}", address)
    assert f"({plain})" in lines[1] and "nothing can be cancelled" in lines[1]
    assert "A finished run" in requests.get(plain, timeout=30).text
    stop(server)


def test_elsewhere_it_asks_for_the_token(engine: LocalEngine) -> None:
    server, address, lines = start("--runs", str(engine.store.layout.root), "--host", "0.0.0.0")
    port = re.search(r":(\d+)/\?token=(\S{32})$", address)
    assert port and len(lines) == 2, "it is not said that reading takes no token"
    plain = f"http://127.0.0.1:{port[1]}/"
    assert requests.get(plain, timeout=30).status_code == 401
    assert "A finished run" in requests.get(f"{plain}?token={port[2]}", timeout=30).text
    stop(server)


def test_a_token_of_one_s_own_is_asked_of_everyone(engine: LocalEngine) -> None:
    server, address, _ = start("--runs", str(engine.store.layout.root), "--token", "my-own")
    assert address.endswith("?token=my-own")
    assert requests.get(address.partition("?")[0], timeout=30).status_code == 401
    stop(server)


def test_the_use_of_gpus_as_nvidia_smi_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        '#!/bin/sh\ncase "$1" in\n'
        '  *compute-apps*) printf "11, 1024, GPU-a\\n11, 512, GPU-b\\n12, [N/A], GPU-b\\n";;\n'
        '  *) printf "GPU-a, 80\\nGPU-b, 40\\nGPU-c, [N/A]\\n";;\nesac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = asyncio.run(resources._gpu_use())
    assert found == {11: (1536 << 20, pytest.approx(0.6)), 12: (0, pytest.approx(0.4))}
