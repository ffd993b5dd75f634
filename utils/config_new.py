"""Write a commented training config for a language pair, with the data sets that catalogues have for it.

OPUS is asked for parallel and monolingual corpora and statmt.org for News Crawl; sacreBLEU's and FLORES' own tables
tell which test sets have the pair. Where a catalogue cannot be reached, the config says so and shows what to write.
Nothing is fetched but lists and sizes; `limbeck preflight` asks for every data set of the config before a run.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from string import ascii_lowercase

from limbeck_taskgraph.config_file import parse_training_config
from limbeck_taskgraph.training_config import LOCALE
from pipeline.common.errors import TransientError, UserError
from pipeline.common.languages import base_language, identifier_codes
from pipeline.data.opus_index import Corpus, find_corpora, find_mono
from pipeline.data.probe import probe
from utils.check_config import check_values
from utils.common import command_parser, run_command
from utils.config_text import config_text
from utils.evaluation_sets import EvaluationSets, evaluation_sets

EXAMPLES = """examples:
  limbeck config new en de                       writes en-de.yml
  limbeck config new ru en --name second-try --output configs/second-try.yml
  limbeck config new en fi --offline --output -  no catalogue is asked; the config is printed
"""
# Corpora that hold the sentences of test sets.
EVALUATION_CORPORA = ("WMT-News", "FLORES", "flores", "flores200", "NTREX", "tico-19")
NEWS_YEARS = 8  # of News Crawl, back from this one
_OPUS_MONO = 3  # corpora of OPUS that are used where News Crawl has none
_OPUS_MONO_SHOWN = 5


@dataclass
class Choice:
    """The data sets that a new config lists."""

    train: list[Corpus] = field(default_factory=list)
    left_out: list[tuple[Corpus, str]] = field(default_factory=list)  # with the reason
    mono: dict[str, list[Corpus]] = field(default_factory=dict)  # by mono-src, mono-trg
    more_mono: dict[str, list[Corpus]] = field(default_factory=dict)  # that may be used instead
    evaluation: EvaluationSets = field(default_factory=EvaluationSets)
    problems: dict[str, str] = field(default_factory=dict)  # train, mono-src, mono-trg: why nothing could be looked up


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and write the config."""
    parser = command_parser("config new", __doc__, EXAMPLES)
    parser.add_argument("src", metavar="SRC", help="source language: en, pt_BR, zh_hant …")
    parser.add_argument("trg", metavar="TRG", help="target language")
    parser.add_argument("--name", help="what the experiment is called (default: SRC-TRG)")
    parser.add_argument("--output", metavar="FILE", help="where to write it; - prints it (default: NAME.yml)")
    parser.add_argument("--force", action="store_true", help="overwrite the file if there is one")
    parser.add_argument("--offline", action="store_true", help="ask no catalogue")
    options = parser.parse_args(arguments)
    return run_command(lambda: _new(options))


def _new(options: argparse.Namespace) -> int:
    for language in (options.src, options.trg):
        check_language(language)
    if options.src == options.trg:
        raise UserError(f"two different languages are needed: SRC and TRG are both {options.src}")
    name = options.name or f"{options.src}-{options.trg}"
    path = Path(options.output or f"{name}.yml")
    if options.output != "-" and path.exists() and not options.force:
        raise UserError(f"{path} exists: name another --output, or overwrite it with --force")
    choice = choose_data(options.src, options.trg, options.offline)
    text = config_text(options.src, options.trg, name, choice)
    check_values(parse_training_config(text, "the new config"))
    for use, problem in choice.problems.items():
        print(f"warning: datasets.{use}: {problem}", file=sys.stderr)
    if options.output == "-":
        sys.stdout.write(text)
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    pairs = sum(corpus.sentences or 0 for corpus in choice.train)
    print(f"wrote {path}: {len(choice.train)} corpora with {pairs:,} sentence pairs for training")
    print(f"next: limbeck config check {path} && limbeck preflight {path}")
    return 0


def check_language(language: str) -> None:
    """Raise UserError, with the nearest codes, unless it is a locale of a language that the pipeline knows."""
    base = base_language(language)
    if not LOCALE.fullmatch(language):
        plain = re.sub("-", "_", language)
        tidy = "_".join([base, *(part.lower() if len(part) == 4 else part.upper() for part in plain.split("_")[1:])])
        hint = f"; did you mean {tidy}?" if LOCALE.fullmatch(tidy) and _is_known(base) else ""
        raise UserError(f"{language!r} is no code of a language, such as en, de, pt_BR or zh_hant{hint}")
    if not _is_known(base):
        shorter = [code for code in _two_letter_codes() if base in identifier_codes(code)]
        similar = difflib.get_close_matches(base, _two_letter_codes(), n=20, cutoff=0.4)
        # The first letter is seldom the wrong one.
        close = shorter or sorted(similar, key=lambda code: code[0] != base[0])[:3]
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UserError(f"no language with the code {base!r} is known{hint}")


def _is_known(base: str) -> bool:
    if len(base) == 2:
        return base in _two_letter_codes()
    if identifier_codes(base) != (base,):
        return True
    if any(base in identifier_codes(code) for code in _two_letter_codes()):
        return False  # catalogues go by the two letters
    from pipeline.common.identify import LanguageJudge  # here, because its models take a second

    try:
        LanguageJudge(base)
    except UserError:
        return False
    return True


def _two_letter_codes() -> list[str]:
    codes = (first + second for first in ascii_lowercase for second in ascii_lowercase)
    return [code for code in codes if identifier_codes(code) != (code,)]


def choose_data(src: str, trg: str, offline: bool = False) -> Choice:
    """Ask the catalogues, all at once, and choose from what they have."""
    choice = Choice(evaluation=evaluation_sets(src, trg))
    questions: dict[str, Callable[[], list[Corpus]]] = {
        "train": partial(find_corpora, src, trg),
        "mono-src": partial(find_mono, src),
        "mono-trg": partial(find_mono, trg),
    }
    if offline:
        choice.problems = dict.fromkeys(questions, "no catalogue was asked (--offline)")
        return choice
    with ThreadPoolExecutor() as pool:
        answers = {use: pool.submit(_ask, question) for use, question in questions.items()}
        news = {"mono-src": pool.submit(news_crawl, src), "mono-trg": pool.submit(news_crawl, trg)}
    found, problem = answers["train"].result()
    choice.train, choice.left_out = sort_out(largest_first(found))
    if not found:
        choice.problems["train"] = problem or f"OPUS has nothing for {src}-{trg}"
    for use, crawled in news.items():
        found, problem = answers[use].result()
        corpora = sort_out(largest_first(found))[0]
        # News Crawl is the cleaner text; OPUS has it for more languages.
        used = crawled.result() or corpora[:_OPUS_MONO]
        choice.mono[use] = used
        choice.more_mono[use] = [corpus for corpus in corpora if corpus not in used][:_OPUS_MONO_SHOWN]
        if problem:
            choice.problems[use] = problem
        elif not used:
            choice.problems[use] = f"neither News Crawl nor OPUS has text in {src if use == 'mono-src' else trg}"
    return choice


def news_crawl(language: str) -> list[Corpus]:
    """The last years of News Crawl that there are in a language, the largest first; their lines are not known."""
    newest = datetime.now(tz=UTC).year
    names = [f"news-crawl_news.{year}" for year in range(newest, newest - NEWS_YEARS, -1)]

    def size_of(name: str) -> tuple[bool, int | None]:
        try:
            return True, probe(name, (language,))
        except (UserError, TransientError):
            return False, None

    with ThreadPoolExecutor(NEWS_YEARS) as pool:
        answers = list(pool.map(size_of, names))
    there = [Corpus(name, None, size) for name, (is_there, size) in zip(names, answers, strict=True) if is_there]
    return largest_first(there)


def _ask(question: Callable[[], list[Corpus]]) -> tuple[list[Corpus], str]:
    """A catalogue's answer, or why there is none."""
    try:
        return question(), ""
    except (UserError, TransientError) as error:
        return [], f"the catalogue could not be reached: {error}"


def largest_first(corpora: list[Corpus]) -> list[Corpus]:
    """Sorted by their sentences; those whose number is not known by their bytes, at the end."""
    return sorted(corpora, key=lambda corpus: (-(corpus.sentences or 0), -(corpus.size or 0), corpus.name))


def sort_out(corpora: list[Corpus]) -> tuple[list[Corpus], list[tuple[Corpus, str]]]:
    """The corpora to train on, and those that are not, with the reason: older versions, sentences of test sets."""
    newest: dict[str, Corpus] = {}
    for corpus in corpora:
        stem, version = _version(corpus)
        if stem not in newest or version > _version(newest[stem])[1]:
            newest[stem] = corpus
    used, left_out = [], []
    for corpus in corpora:
        stem = _version(corpus)[0]
        if newest[stem] is not corpus:
            left_out.append((corpus, f"an older version of {newest[stem].name}"))
        elif stem.removeprefix("opus_") in EVALUATION_CORPORA:
            left_out.append((corpus, "holds sentences of test sets"))
        else:
            used.append(corpus)
    return used, left_out


def _version(corpus: Corpus) -> tuple[str, tuple[int, ...]]:
    """A corpus's name and its version as numbers: `opus_ParaCrawl/v9` is ("opus_ParaCrawl", (9,))."""
    stem, _, version = corpus.name.rpartition("/")
    return stem, tuple(int(number) for number in re.findall(r"\d+", version))


if __name__ == "__main__":
    sys.exit(main())
