"""`flores_dev`, `flores_devtest`: the sentences of FLORES-200 in any of its languages.

LIMBECK_FLORES_URL names a copy of the archive.
"""

import gzip
import os
import re
import shutil
import tarfile
import zlib
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.common.files import sha256
from pipeline.data.language_codes import iso_codes, read_locale
from pipeline.data.locales import Locale
from pipeline.data.remote_files import Alternatives, fetch_first, open_fetched
from pipeline.data.source import Source

ADDRESS = "https://dl.fbaipublicfiles.com/nllb/flores200_dataset.tar.gz"
PARTS = ("dev", "devtest")


def open_source(rest: str, languages: tuple[str, ...], folder: Path) -> Source:
    """Fetch `flores_<rest>` and open it for one or more languages.

    Raises UserError when FLORES does not have a language and on a damaged archive, TransientError when the server
    cannot be reached now.
    """
    dataset = f"flores_{rest}"
    locales = {language: read_locale(language) for language in languages}
    uri, archive = fetch_first(addresses(rest, languages)[0], folder, dataset)
    texts = _extract(archive, uri, rest, {code for locale in locales.values() for code in iso_codes(locale)}, folder)
    chosen = [_choose(texts, language, locale, dataset) for language, locale in locales.items()]
    origin = {"urls": [uri], "sha256": sha256(archive), "languages": chosen}
    names = [f"{code} of {uri}" for code in chosen]
    return open_fetched([texts[code] for code in chosen], names, languages, dataset, origin)


def addresses(rest: str, languages: tuple[str, ...]) -> list[Alternatives]:
    """The address of the archive that has all languages."""
    if rest not in PARTS:
        raise UserError(f"data set flores_{rest} does not exist: FLORES has flores_dev and flores_devtest")
    for language in languages:
        read_locale(language)
    return [(os.environ.get("LIMBECK_FLORES_URL") or ADDRESS,)]


def _extract(archive: Path, uri: str, part: str, codes: set[str], folder: Path) -> dict[str, Path]:
    """The texts of some languages in all scripts that they have, by FLORES's code (`zho_Hant`)."""
    # …/devtest/zho_Hant.devtest
    wanted = re.compile(rf"(?:.*/)?{part}/(?P<code>(?:{'|'.join(sorted(codes))})_[A-Z][a-z]{{3}})\.{part}")
    texts: dict[str, Path] = {}
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                match = wanted.fullmatch(member.name)
                if match is None or (content := members.extractfile(member)) is None:
                    continue
                texts[match["code"]] = folder / f"{match['code']}.{part}"
                with texts[match["code"]].open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{uri} is not a sound tar.gz archive: {error}") from error
    return texts


def _choose(texts: dict[str, Path], language: str, locale: Locale, dataset: str) -> str:
    found = sorted(code for code in texts if code[:3] in iso_codes(locale))
    in_script = [code for code in found if code.endswith(f"_{locale.written_in}")]
    if len(in_script) == 1:
        return in_script[0]
    if len(found) == 1 and locale.script is None:
        return found[0]
    if not found:
        raise UserError(f"data set {dataset} does not have the language {language} ({' or '.join(iso_codes(locale))})")
    raise UserError(
        f"data set {dataset} has {' and '.join(found)} for {language}: name the language with one of these scripts"
    )
