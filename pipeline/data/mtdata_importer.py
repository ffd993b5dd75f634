"""`mtdata_<id>`: a parallel data set of the index of mtdata (Statmt-europarl-10-deu-eng …).

mtdata knows where a data set is and how to read it; it runs as a command of its own, because as a library it takes over
the logging. It keeps what it fetches in $MTDATA, else in $LIMBECK_CACHE/mtdata, else in ~/.mtdata.
"""

import functools
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from pipeline.common.errors import TransientError, UserError
from pipeline.data.language_codes import iso_codes, read_locale
from pipeline.data.locales import Locale, closeness, parse_locale
from pipeline.data.remote_files import Alternatives, only_pair, open_fetched
from pipeline.data.source import Source

# <group>-<name>-<version>-<language>-<language>
_ID = re.compile(r"[^-/\s]+-[^-/\s]+-[^-/\s]+-(?P<first>[A-Za-z_]+)-(?P<second>[A-Za-z_]+)")
_MAY_PASS = re.compile(r"ConnectionError|Timeout|ChunkedEncodingError|IncompleteRead|\b(?:429|50[0-9])\b")


def open_source(rest: str, languages: tuple[str, ...], folder: Path) -> Source:
    """Fetch `mtdata_<rest>` with mtdata and open it.

    Raises UserError when mtdata is not installed, does not know the data set or cannot read it, TransientError when a
    server cannot be reached now.
    """
    dataset = f"mtdata_{rest}"
    first, second = _codes_of(rest)
    codes = _sides(rest, languages)
    output = folder / "mtdata"
    _run(dataset, "get", "-l", f"{first}-{second}", "-tr", rest, "-o", str(output), "-j", "1")
    paths = [output / "train-parts" / f"{rest}.{code}" for code in codes]
    absent = [path.name for path in paths if not path.is_file()]
    if absent:
        raise UserError(f"data set {dataset}: mtdata wrote no {' and no '.join(absent)}")
    origin = {"mtdata": importlib.metadata.version("mtdata"), "id": rest}
    return open_fetched(paths, [path.name for path in paths], languages, dataset, origin)


def addresses(rest: str, languages: tuple[str, ...]) -> list[Alternatives]:
    """The address that mtdata's index has; reading the index takes seconds, once for each pair."""
    _sides(rest, languages)
    known = _index("-".join(_codes_of(rest)))
    if rest not in known:
        name = rest.split("-")[1]
        similar = [other for other in known if other.split("-")[1] == name] or list(known)[:5]
        raise UserError(f"mtdata has no data set {rest!r}; for the pair it has {', '.join(similar) or 'none'}")
    return [(url,) for url in known[rest]]


def _codes_of(rest: str) -> tuple[str, str]:
    match = _ID.fullmatch(rest)
    if match is None:
        raise UserError(
            f"data set mtdata_{rest} must be an id of mtdata's index, as in mtdata_Statmt-europarl-10-deu-eng: "
            "mtdata list shows them"
        )
    return match["first"], match["second"]


def _sides(rest: str, languages: tuple[str, ...]) -> list[str]:
    """mtdata's codes of our languages, in our order. Raises UserError when the data set is of another pair."""
    codes = _codes_of(rest)
    only_pair(languages, f"mtdata_{rest}")
    sides = [[code for code in codes if _is_in(code, read_locale(language))] for language in languages]
    if [len(found) for found in sides] != [1, 1] or sides[0] == sides[1]:
        raise UserError(f"data set mtdata_{rest} is of the pair {'-'.join(codes)}, not {'-'.join(languages)}")
    return [found[0] for found in sides]


def _is_in(code: str, wanted: Locale) -> bool:
    """Whether a code of mtdata (deu, zho_TW, srp_Latn) is of a language."""
    language, _, rest = code.partition("_")
    if language not in iso_codes(wanted):
        return False
    found = parse_locale(f"{wanted.language}_{rest}" if rest else wanted.language)
    return found is not None and closeness(wanted, found) >= 0


@functools.cache
def _index(pair: str) -> dict[str, list[str]]:
    """The data sets of a pair by their ids: the addresses of their files."""
    lines = _run(f"mtdata_…-{pair}", "list", "-l", pair).splitlines()
    rows = [line.split("\t") for line in lines if "\t" in line]
    # A data set of two files has both addresses in one field, as a Python tuple.
    return {row[0]: re.findall(r"[a-z]+://[^\s'\",()]+", row[1]) for row in rows}


def _run(dataset: str, *arguments: str) -> str:
    if importlib.util.find_spec("mtdata") is None:
        raise UserError(f"data set {dataset} needs mtdata, which is not installed: pip install 'limbeck[mtdata]'")
    cache = os.environ.get("LIMBECK_CACHE")
    own = {"MTDATA": str(Path(cache).expanduser() / "mtdata")} if cache else {}
    done = subprocess.run(
        [sys.executable, "-m", "mtdata", "-no-pb", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "10000", **own, **os.environ},  # it breaks its messages at the width of the terminal
    )
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given").strip()
        kind = TransientError if _MAY_PASS.search(reason) else UserError
        raise kind(f"data set {dataset}: mtdata failed: {reason}")
    return done.stdout
