"""A worker of a Taskcluster deployment: runs whatever is pending as its definition says, on this machine."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from taskcluster_place import LOG, Place


class RealWorker:
    """Takes one task after the other, each in a folder of its own, as generic-worker does: commands, environment,
    taskcluster-proxy, exit codes and the folders that become artifacts."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.errors: list[BaseException] = []
        self.done: list[str] = []  # names of tasks, in the order in which they ended

    def __enter__(self) -> "RealWorker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        if self.errors:
            raise self.errors[0]

    def _work(self) -> None:
        state = self._place.state
        while not self._stopped.wait(0.05):
            with state.lock:
                pending = [one for one, status in state.statuses.items() if status["state"] == "pending"]
                if not pending:
                    continue
                state.claim(pending[0])
            try:
                self._run(pending[0])
            except BaseException as error:
                self.errors.append(error)
                return

    def _run(self, task_id: str) -> None:
        state, task = self._place.state, self._place.state.tasks[task_id]
        run = state.statuses[task_id]["runs"][-1]["runId"]
        folder, payload = self._place.folder / "machine" / f"{task_id}-{run}", task["payload"]
        folder.mkdir(parents=True)
        code, said = 0, b""
        for command in payload["command"]:
            done = subprocess.run(
                command, cwd=folder, env=self._environment(task_id, run, payload), capture_output=True, check=False
            )
            code, said = done.returncode, said + done.stdout + done.stderr
            if code:
                break
        with state.lock:
            state.add_artifact(task_id, LOG, said)
            if code in payload.get("onExitStatus", {}).get("retry", []):
                state.lose(task_id, "intermittent-task")
                return
            if code == 0:
                self._upload(task_id, folder, payload)
            state.resolve(task_id, "failed" if code else "completed")
            self.done.append(task["metadata"]["name"])

    def _environment(self, task_id: str, run: int, payload: dict[str, Any]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKCLUSTER_", "PYTHON"))}
        proxy = payload.get("features", {}).get("taskclusterProxy")
        return {
            **kept,
            "LIMBECK_ENVIRONMENT": sys.prefix,
            "OMP_NUM_THREADS": "1",
            **payload.get("env", {}),
            "TASKCLUSTER_ROOT_URL": self._place.server.url,
            **({"TASKCLUSTER_PROXY_URL": self._place.server.proxy_url} if proxy else {}),
            "TASK_ID": task_id,
            "RUN_ID": str(run),
        }

    def _upload(self, task_id: str, folder: Path, payload: dict[str, Any]) -> None:
        for output in payload.get("artifacts", []):
            source = folder / output["path"]
            for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
                if file.is_file():
                    inside = file.relative_to(source).as_posix()
                    name = output["name"] if source.is_file() else f"{output['name']}/{inside}"
                    self._place.state.add_artifact(task_id, name, file.read_bytes())
