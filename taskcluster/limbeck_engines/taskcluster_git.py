"""The state of the project's git checkout: the deployment runs what was pushed, not what lies on this disk."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.errors import UserError

_SHOWN = 5
_SOURCES = ("pipeline/", "taskcluster/", "utils/", ".taskcluster.yml", "pyproject.toml")


@dataclass(frozen=True)
class Pushed:
    """A commit of a branch, and where others find it. `url` is without credentials."""

    url: str
    branch: str
    revision: str


@dataclass(frozen=True)
class Checkout:
    """A checkout, and the remote and branch that it is pushed to (None: those of the current branch's upstream)."""

    folder: Path
    remote: str | None = None
    branch: str | None = None

    def check_clean(self) -> None:
        """Raise UserError naming what is changed and not committed: the deployment would not see it.

        Of files that git does not know, only sources count: configs are sent, and runs may lie anywhere.
        """
        found = self._git("status", "--porcelain", "--untracked-files=all").splitlines()
        lines = [line for line in found if not line.startswith("??") or line[3:].startswith(_SOURCES)]
        if lines:
            names = ", ".join(line[3:] for line in lines[:_SHOWN])
            more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
            raise UserError(
                f"{self.folder} has changes that are not committed ({names}{more}), which the deployment would not "
                "see: commit them, or go without them and without pushing by --no-push"
            )

    def target(self) -> tuple[str, str]:
        """The remote and the branch on it. Raises UserError where they are not known, naming the flags."""
        if self.remote and self.branch:
            return self.remote, self.branch
        current = self._git("branch", "--show-current").strip()
        if not current and not self.branch:
            raise UserError(f"{self.folder} is on no branch: name the one to push to with --branch")
        upstream = self._try("rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}") or ""
        remotes = self._git("remote").split()
        remote = self.remote or next((name for name in remotes if upstream.startswith(f"{name}/")), None)
        if remote is None:
            if len(remotes) != 1:
                known = f"; there are {', '.join(remotes)}" if remotes else " (git remote add NAME URL makes one)"
                raise UserError(f"the branch {current} has no upstream: name a remote with --remote{known}")
            remote = remotes[0]
        same_remote = upstream.startswith(f"{remote}/")
        return remote, self.branch or (upstream.removeprefix(f"{remote}/") if same_remote else current)

    def find(self) -> Pushed:
        """The commit that is checked out, as it is or will be on the remote."""
        remote, branch = self.target()
        url = self._git("remote", "get-url", remote).strip()
        return Pushed(_web_url(url), branch, self._git("rev-parse", "HEAD").strip())

    def push(self) -> Pushed:
        """Push the commit that is checked out, never by force. Raises UserError with git's own words."""
        remote, branch = self.target()
        pushed = self.find()
        self._git("push", remote, f"{pushed.revision}:refs/heads/{branch}")
        return pushed

    def check_pushed(self) -> Pushed:
        """Raise UserError unless the remote has the commit that is checked out, as the tip of the branch or earlier."""
        remote, branch = self.target()
        pushed = self.find()
        tip = self._git("ls-remote", remote, f"refs/heads/{branch}").partition("\t")[0].strip()
        known = tip and (
            tip == pushed.revision or self._try("merge-base", "--is-ancestor", pushed.revision, tip) is not None
        )
        if not known:
            raise UserError(
                f"the branch {branch} of {remote} does not have the commit {pushed.revision[:12]}: push it, or leave "
                "--no-push out"
            )
        return pushed

    def author(self) -> str:
        """E-mail of the commit's author."""
        return self._git("log", "-1", "--format=%ae").strip()

    def _git(self, *words: str) -> str:
        done = self._run(words)
        if done.returncode != 0:
            said = " ".join(line.strip() for line in done.stderr.strip().splitlines() if not line.startswith("hint:"))
            raise UserError(f"git {' '.join(words)} fails in {self.folder}: {said or f'exit code {done.returncode}'}")
        return done.stdout

    def _try(self, *words: str) -> str | None:
        done = self._run(words)
        return done.stdout.strip() if done.returncode == 0 else None

    def _run(self, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["git", *words], cwd=self.folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
            )
        except FileNotFoundError as error:
            raise UserError("git is not installed: the deployment takes the project from a git repository") from error


def _web_url(url: str) -> str:
    """The URL of a remote as services know it: https for the forms of ssh, no credentials, no `.git`."""
    ssh = re.fullmatch(r"(?:ssh://)?git@([^:/]+)[:/](.+)", url)
    if ssh:
        url = f"https://{ssh[1]}/{ssh[2]}"
    url = re.sub(r"(?<=://)[^/@]*@", "", url)
    return url.removesuffix("/").removesuffix(".git") if url.startswith("http") else url
