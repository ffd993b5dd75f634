"""Headless Chromium, driven by its DevTools protocol: open a page, run script in it, press keys, take its picture."""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SKIP_REASON = "no Chromium on PATH: install the package chromium to run this"
TIMEOUT = 30.0  # seconds for anything to happen
# Without a sandbox: in containers there is none to be had, and the pages are our own.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


class Page:
    """A tab. `wrong` gathers what pages report as errors: scripts, policies, what could not be loaded."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.wrong: list[str] = []
        self.requested: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its result."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(self._answers[number], TIMEOUT)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self._loaded.clear()
        await self.send("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), TIMEOUT)

    async def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        answer = await self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait until an expression is true, and return it."""
        deadline = time.monotonic() + TIMEOUT
        while not (value := await self.run(script)):
            assert time.monotonic() < deadline, f"never true: {script}; {self.wrong}; {(await self.text())[:2000]}"
            await asyncio.sleep(0.05)
        return value

    async def click(self, selector: str) -> None:
        """Click on the first such element, and wait for the page that it leads to, if it is a link."""
        self._loaded.clear()
        is_link = await self.run(f"document.querySelector({json.dumps(selector)}).closest('a') !== null")
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")
        if is_link:
            await asyncio.wait_for(self._loaded.wait(), TIMEOUT)

    async def type(self, text: str) -> None:
        """Type where the focus is."""
        await self.send("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    async def text(self) -> str:
        return str(await self.run("document.body.innerText"))

    async def picture(self, path: Path, width: int, height: int, dark: bool = False) -> None:
        """A PNG of the page at that size."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])
        await asyncio.sleep(0.5)
        path.write_bytes(base64.b64decode((await self.send("Page.captureScreenshot"))["data"]))

    async def close(self) -> None:
        self._reader.cancel()
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            event = json.loads(message.data)
            if "id" in event:
                self._answers[event["id"]].set_result(event)
                continue
            parameters = event["params"]
            match event["method"]:
                case "Page.loadEventFired":
                    self._loaded.set()
                case "Network.requestWillBeSent":
                    self.requested.append(parameters["request"]["url"])
                case "Runtime.exceptionThrown":
                    self.wrong.append(json.dumps(parameters["exceptionDetails"])[:500])
                case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                    self.wrong.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
                case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "assert"):
                    self.wrong.append(json.dumps(parameters["args"])[:500])


@contextlib.asynccontextmanager
async def open_page() -> AsyncIterator[Page]:
    """A tab of a fresh browser, which ends with the block."""
    assert CHROMIUM, SKIP_REASON
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
        with (Path(profile) / "log").open("w") as log:
            browser = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            async with aiohttp.ClientSession() as client:
                port = await _port(Path(profile) / "DevToolsActivePort")
                async with client.get(f"http://127.0.0.1:{port}/json") as answer:
                    tab = next(tab for tab in await answer.json() if tab["type"] == "page")
                page = Page(await client.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=1 << 28))
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await page.send(f"{domain}.enable")
                # As if it were the window that a person looks at: without that nothing gets the focus.
                await page.send("Emulation.setFocusEmulationEnabled", enabled=True)
                yield page
                await page.close()
        finally:
            os.killpg(browser.pid, signal.SIGTERM)
            browser.wait()


async def _port(path: Path) -> int:
    """The port that a browser says it listens on."""
    deadline = time.monotonic() + TIMEOUT
    while not (path.is_file() and "\n" in path.read_text()):
        assert time.monotonic() < deadline, (path.parent / "log").read_text()[-1000:]
        await asyncio.sleep(0.05)
    return int(path.read_text().splitlines()[0])
