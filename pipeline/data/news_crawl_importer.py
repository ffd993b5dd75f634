"""`news-crawl_news.<year>`: a year of News Crawl in one language, deduplicated, in random order.

LIMBECK_NEWS_CRAWL_URL names a mirror.
"""

import re
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.data.language_codes import read_locale
from pipeline.data.locales import Locale, closeness
from pipeline.data.remote_files import Alternatives, base_address, fetch_first, only_language, open_fetched
from pipeline.data.source import Source

ADDRESS = "https://data.statmt.org/news-crawl"
_OTHER_CODES = {"nb": ("no",)}


def open_source(rest: str, languages: tuple[str, ...], folder: Path) -> Source:
    """Fetch `news-crawl_<rest>` into `folder` and open it.

    Raises UserError when there is no such year for the language and on a damaged file, TransientError when the server
    cannot be reached now.
    """
    dataset = f"news-crawl_{rest}"
    uri, path = fetch_first(addresses(rest, languages)[0], folder, dataset)
    return open_fetched([path], [uri], languages, dataset, {"urls": [uri]})


def addresses(rest: str, languages: tuple[str, ...]) -> list[Alternatives]:
    """The addresses that the year's one file may have."""
    dataset = f"news-crawl_{rest}"
    if not re.fullmatch(r"news\.\d{4}", rest):
        raise UserError(f"data set {dataset} must name a year, as in news-crawl_news.2021")
    language = only_language(languages, dataset)
    locale = read_locale(language)
    base = locale.language
    if closeness(locale, Locale(base)) < 0:
        raise UserError(f"data set {dataset} has no text in {language}: News Crawl knows {base} without a region only")
    place = base_address("LIMBECK_NEWS_CRAWL_URL", ADDRESS)
    codes = (base, *_OTHER_CODES.get(base, ()))
    return [tuple(f"{place}/{code}/{rest}.{code}.shuffled.deduped.gz" for code in codes)]
