"""Preflight of what comes from elsewhere: data sets, models and corpora of continuation; and of the languages."""

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from taskgraph.taskgraph import TaskGraph

from limbeck_taskgraph.continuation_config import EXTERNAL_TYPES
from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.clean.rules import check_overrides, rules_for
from pipeline.common.augment.augmenter import parse_augmentation
from pipeline.common.download import MissingError, without_credentials
from pipeline.common.errors import TransientError, UserError
from pipeline.common.identify import LanguageJudge
from pipeline.common.languages import is_latin, is_unspaced, not_letters
from pipeline.common.remote import join, size
from pipeline.data.file_importer import places
from pipeline.data.names import split_dataset
from pipeline.data.package_index import find_files
from pipeline.data.probe import probe
from utils.evaluation_sets import in_flores
from utils.plan_text import format_size
from utils.preflight_findings import Finding, error, ok, warning
from utils.preflight_hub import check_hub_model, hub_model

# So many questions at a time, most of them to different servers.
THREADS = 16
URI_KEYS = ("url", "urls", "src", "trg", "tok-src", "tok-trg", "alignments", "priors", "shortlist")
# What continues a training: the last weights, the optimizer's state, and how far it was.
CHECKPOINT_FILES = ("model.npz", "optimizer.pt", "progress.yml")
_THERE = "is there; its size is not known before"
_UNKNOWN = {"gettext": "the distribution is there; which languages it has shows when it is fetched"}


@dataclass
class Sources:
    """How much will be fetched, in bytes; filled by the checks, read by that of the disk."""

    sizes: list[int] = field(default_factory=list)
    unknown: int = 0  # things whose size no server tells

    def add(self, found: int | None) -> None:
        if found is None:
            self.unknown += 1
        else:
            self.sizes.append(found)


def check_datasets(graph: TaskGraph, sources: Sources) -> Iterator[Finding]:
    """Whether every data set that the graph imports exists for its languages."""
    questions: dict[tuple[str, tuple[str, ...]], Callable[[], int | None]] = {}
    for label in sorted(graph.tasks):
        task = graph.tasks[label]
        if task.kind == "dataset":
            given = task.task["extra"]["limbeck"]["parameters"]
            languages = (given["lang"],) if "lang" in given else (given["src"], given["trg"])
            questions[given["dataset"], languages] = partial(dataset_size, given["dataset"], languages)
    for (name, languages), answer in _ask_all(questions):
        subject = f"{without_credentials(name)} ({'-'.join(languages)})"
        if isinstance(answer, Exception):
            yield error(subject, str(answer))
        else:
            sources.add(answer)
            yield ok(
                subject, format_size(answer) if answer is not None else _UNKNOWN.get(name.partition("_")[0], _THERE)
            )


def dataset_size(name: str, languages: tuple[str, ...]) -> int | None:
    """How many bytes a data set has, or None; raises as `probe` does, and for files and distributions that are not
    there."""
    importer, rest = split_dataset(name)
    if importer == "file":
        return sum(size(path) or 0 for path in places(rest, languages, name))
    if importer == "gettext":
        distribution, _, version = rest.partition("==")
        if not _is_installed(distribution, version):
            find_files(distribution, version or None)
        return None
    if importer == "flores" and (absent := [language for language in languages if not in_flores(language)]):
        raise UserError(f"FLORES-200 does not have {' and '.join(absent)}")
    return probe(name, languages)


def _is_installed(distribution: str, version: str) -> bool:
    try:
        return version in ("", importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return False


def check_continuation(config: TrainingConfig, sources: Sources) -> Iterator[Finding]:
    """Whether every address under `continuation` answers, and every model there has its files."""
    continuation = config.to_parameters()["continuation"]
    model_file = f"final.model.npz.best-{config.experiment.best_model}.npz"
    questions: dict[str, Callable[[], int | None]] = {}
    for path, uri in continuation_uris(continuation):
        model = _model_at(continuation, path)
        if model is None:
            questions[path] = partial(size, uri)
        elif model.get("type") in EXTERNAL_TYPES and (found := hub_model(uri, model.get("revision"))):
            yield from check_hub_model(path, *found)
        else:
            for name, address in _files_of_model(uri, model, model_file).items():
                questions[f"{path}{f' ({name})' if name else ''}"] = partial(size, address)
    for subject, answer in _ask_all(questions):
        if isinstance(answer, MissingError) and "(optimizer.pt)" in subject:
            yield error(subject, f"{answer}; without the optimizer's state write mode: init, which trains anew")
        elif isinstance(answer, Exception):
            yield error(subject, str(answer))
        else:
            sources.add(answer)
            yield ok(subject, "answers; its size is not known before" if answer is None else format_size(answer))


def continuation_uris(value: Any, path: str = "continuation") -> Iterator[tuple[str, str]]:
    """Every address under (a part of) `continuation`, with its key's path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, str):
                # A corpus of one side is an address itself.
                if key in URI_KEYS or path == "continuation.corpora":
                    yield f"{path}.{key}", inner
            elif isinstance(inner, list):
                yield from ((f"{path}.{key}.{number}", item) for number, item in enumerate(inner) if key in URI_KEYS)
            else:
                yield from continuation_uris(inner, f"{path}.{key}")


def _model_at(continuation: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """The model that an address belongs to, if it does."""
    parts = path.split(".")
    return continuation["models"][parts[2]] if parts[1] == "models" else None


def _files_of_model(uri: str, model: Mapping[str, Any], model_file: str) -> dict[str, str]:
    """What must be there of a model: a name for people -> its address. The name is empty for the address itself."""
    kind, plain = model.get("type", "default"), uri.partition("?")[0]
    if kind == "huggingface":
        return {"config.json": join(uri, "config.json")}
    if kind == "ctranslate2":
        return {"model.bin": join(uri, "model.bin")}
    if plain.endswith((".npz", ".zip")):
        return {"": uri}
    if kind == "opusmt":
        return {"decoder.yml": join(uri, "decoder.yml")}
    names = CHECKPOINT_FILES if model.get("mode") == "continue" else (model_file,)
    return {name: join(uri, name) for name in names}


def _ask_all(questions: Mapping[Any, Callable[[], int | None]]) -> Iterator[tuple[Any, int | Exception | None]]:
    """The answer to each question, or its error; asked in parallel, told in order."""

    def answer(question: Callable[[], int | None]) -> int | Exception | None:
        try:
            return question()
        except (UserError, TransientError) as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        yield from zip(questions, pool.map(answer, questions.values()), strict=True)


def check_languages(config: TrainingConfig) -> Iterator[Finding]:
    """What the pipeline's tools know of both languages."""
    rules = check_overrides(config.experiment.cleaning.default)
    for key, language in (("experiment.src", config.experiment.src), ("experiment.trg", config.experiment.trg)):
        try:
            LanguageJudge(language)
            yield ok(key, f"{language}: the language identifier knows it")
        except UserError as problem:
            is_off = rules_for(language, rules).language is False
            yield warning(key, f"{language}: text of other languages stays in") if is_off else error(key, str(problem))
        if is_unspaced(language):
            yield ok(key, f"{language}: written without spaces; each character counts as a word")
    yield from _check_casing(config)


def _check_casing(config: TrainingConfig) -> Iterator[Finding]:
    given, src = config.experiment.augmentation, config.experiment.src
    augmentation = parse_augmentation("defaults" if given is None else given)
    if (augmentation.upper_case or augmentation.title_case) and not _has_case(src):
        yield ok("experiment.augmentation", f"{src} is written without upper case: upper-case and title-case rest")


def _has_case(language: str) -> bool:
    """Whether most letters of the language's script, beside Latin ones, have an upper case."""
    if is_latin(language):
        return True
    foreign = not_letters(language)
    letters = [letter for letter in map(chr, range(0x370, 0xFFFE)) if letter.isalpha() and not foreign.match(letter)]
    return 2 * sum(letter.lower() != letter.upper() for letter in letters) > len(letters)
