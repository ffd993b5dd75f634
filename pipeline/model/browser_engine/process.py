"""The engine at work: one Node process, which is asked and answers by lines of JSON."""

import contextlib
import json
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn

from pipeline.common.errors import TransientError, UserError
from pipeline.model.browser_engine.files import ModelFiles
from pipeline.model.browser_engine.install import HERE, check_node, engine_files

SECONDS = 600.0  # for one answer
_CLOSING_SECONDS = 5.0
_MESSAGE = 500  # characters of what the engine says about an error


class BrowserEngine:
    """The browser's engine with a model.

    Use it as a context, or close it: its process ends then, and also when the process that started it dies.
    """

    def __init__(self, files: ModelFiles, seconds: float = SECONDS) -> None:
        """Start the process and load a model; no answer may take longer than `seconds`.

        Raises what engine_folder raises, and UserError when there is no Node or the engine does not load the model.
        """
        check_node()
        worker = engine_files()["worker/bergamot-translator-worker.wasm"].parent
        self.seconds = seconds
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 -- open as long as the process
        self._process = subprocess.Popen(
            ["node", str(HERE / "serve.mjs"), str(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
        )
        self.before_loading = self._ask({"peakMemory": True})["bytes"]  # of memory, of Node and the engine alone
        self.load(files)

    def load(self, files: ModelFiles) -> None:
        """Take another model. Raises UserError when the engine does not load it; then the process has ended."""
        self.files = files
        try:
            self._ask({"load": files.described()})
        except UserError as error:
            raise UserError(f"{files.model}: {error}") from error

    def translate(self, texts: Sequence[str], html: bool = False) -> list[str]:
        """Translate texts, in the engine's own batches. With `html` they may hold tags, which are kept around the
        translations of what they were around; other markup (entities) is read and written as HTML, too.

        A text is one sentence to the engine, whatever its punctuation; a long one is translated in parts.

        Raises UserError when the engine fails, as it does on tags that are not closed in order, and TransientError when
        it does not answer in time or is killed; then the process has ended.
        """
        if not texts:
            return []
        translations: list[str] = self._ask({"translate": list(texts), "html": html})["translations"]
        return translations

    def peak_memory(self) -> int:
        """The largest resident memory that the process has had so far, in bytes."""
        return int(self._ask({"peakMemory": True})["bytes"])

    def close(self) -> None:
        """End the process. Does nothing when it has ended."""
        process = self._process
        assert process.stdin and process.stdout
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_CLOSING_SECONDS)
        except BaseException as error:
            process.kill()
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        finally:
            process.stdout.close()
            self._messages.close()

    def __enter__(self) -> "BrowserEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process.stdin and process.stdout
        if process.stdout.closed:
            raise UserError("the browser's engine has ended: start another one")
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self.seconds, give_up)
        timer.daemon = True
        timer.start()
        line = b""
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            pass
        except BaseException:
            # The answer to come would be taken for that of another request.
            process.kill()
            self.close()
            raise
        finally:
            timer.cancel()
        if not line.endswith(b"\n"):
            self._ended(late.is_set())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            self.close()
            raise UserError(f"the browser's engine says: {_shortened(answer['error'])}")
        return answer

    def _ended(self, late: bool) -> NoReturn:
        """Raises what the process ended of."""
        self._process.wait()
        self._messages.seek(0)
        messages = self._messages.read().decode("utf-8", "replace")
        code = self._process.returncode
        self.close()
        if late:
            raise TransientError(f"the browser's engine gave no answer within {self.seconds:g} s, and was ended")
        if code == -signal.SIGKILL:
            raise TransientError(
                "the browser's engine was killed, perhaps because memory ran out: use a machine with more memory"
            )
        raise UserError(f"the browser's engine ended with exit code {code}: {_shortened(messages)}")


def _shortened(messages: str) -> str:
    """What the engine wrote of an error, in one line: Marian's own sentence, else the beginning."""
    said = re.search(r"\] Error: (.*)", messages)
    return " ".join((said[1] if said else messages).split())[:_MESSAGE] or "nothing"
