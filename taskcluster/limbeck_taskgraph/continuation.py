"""What `continuation` means for the graph: what is supplied, what is trained all the same, and what is not made at all.

Substitution itself is the catalogue's: it names for each artifact type the kinds that make it, those of continuation
first. Here stands what each continuation task brings, and which sources a supplied artifact makes idle.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck_taskgraph.continuation_config import EXTERNAL_TYPES
from limbeck_taskgraph.fingerprint import fingerprint
from pipeline.common.remote import join, local_path

Config = Mapping[str, Any]
Variables = dict[str, Any]
DEFAULT_FILTER_FRACTION = 0.05  # of a distilled corpus, where there is a backward model to judge it
# The role of a supplied corpus -> the types of its text and of its alignments.
_CORPORA = {
    "parallel": ("corpus/parallel", "alignments/parallel"),
    "backtranslations": ("corpus/backtranslations", "alignments/backtranslations"),
    "distillation": ("corpus/distillation", "alignments/distillation"),
    "devset": ("corpus/devset", None),
    "mono-src": ("corpus/mono-src", None),
    "mono-trg": ("corpus/mono-trg", None),
}
# What the trainer leaves behind for mode continue, beside the best model.
_CHECKPOINT_FILES = ("model.npz", "optimizer.pt", "progress.yml")


def model_file(config: Config) -> str:
    """The name of a trained model in its directory."""
    return f"final.model.npz.best-{config['experiment']['best-model']}.npz"


def idle_datasets(config: Config) -> dict[str, str]:
    """Uses of data sets that are listed but not read -> the key that stands for them."""
    corpora, models = config["continuation"]["corpora"], config["continuation"]["models"]
    listed, student = config["datasets"], models["student"]
    reasons = {
        "devtest": "continuation.corpora.devset" if corpora["devset"] else None,
        "mono-src": next(
            (f"continuation.corpora.{name}" for name in ("distillation", "mono-src") if corpora[name]), None
        ),
        "mono-trg": next(
            (
                f"continuation.corpora.{name}"
                for name in ("distillation", "backtranslations", "mono-trg")
                if corpora[name]
            ),
            None,
        ),
    }
    if student and student["mode"] == "use":
        reasons |= dict.fromkeys(("mono-src", "mono-trg"), "continuation.models.student")
    return {use: reason for use, reason in reasons.items() if reason and listed[use]}


def idle_keys(config: Config) -> dict[str, str]:
    """Keys of the config that are given but not read -> why."""
    found = {f"datasets.{use}": f"{reason} stands for it" for use, reason in idle_datasets(config).items()}
    teacher = config["continuation"]["models"]["teacher"]
    if config["continuation"]["corpora"]["backtranslations"] and _mode(teacher) == "use":
        found["continuation.corpora.backtranslations"] = "only a teacher that is trained reads it"
    return found


def effective_datasets(config: Config) -> dict[str, list[str]]:
    """The data sets that are read."""
    idle = idle_datasets(config)
    return {use: [] if use in idle else names for use, names in config["datasets"].items()}


def derived_of_continuation(config: Config, student_meets_teacher: bool) -> dict[str, Any]:
    """What kinds ask for under `derived`."""
    continuation, experiment = config["continuation"], config["experiment"]
    corpora, models, target = continuation["corpora"], continuation["models"], config["target-stage"]
    student_is_used = _mode(models["student"]) == "use"
    teaches = not (corpora["distillation"] or student_is_used) or student_meets_teacher
    # Target text to translate back; only a teacher reads it.
    translates_back = teaches and (effective_datasets(config)["mono-trg"] or corpora["mono-trg"])
    has_backwards = bool(translates_back or (teaches and models["backwards"]))
    fraction = experiment["distillation-filter-fraction"]
    if fraction is None:
        fraction = DEFAULT_FILTER_FRACTION if has_backwards and not _is_external(models["backwards"]) else 0
    backward = bool(has_backwards or (fraction and teaches) or "backward" in target)
    return {
        "filter-fraction": fraction if teaches else 0,
        "backward-model": backward,
        "trains-backwards": backward and _mode(models["backwards"]) != "use",
        "trains-teacher": _mode(models["teacher"]) != "use" and (teaches or "teacher" in target),
        "trains-student": not student_is_used,
        "teacher-has-vocab": not _is_external(models["teacher"]),
        "teacher-source-prefix": (models["teacher"] or {}).get("source-prefix"),
        "backwards-has-vocab": not _is_external(models["backwards"]),
        "backwards-source-prefix": (models["backwards"] or {}).get("source-prefix"),
        "aligns-parallel": not _has_alignments(corpora["parallel"]),
        "distils": not (corpora["distillation"] or student_is_used),
        "shortlist-of-original": student_is_used and not corpora["distillation"],
    }


def supplied(role: str, context: Config) -> Iterator[Variables]:
    """The continuation task that brings the corpus of a role, if one is given."""
    given = context["continuation"]["corpora"][role]
    if not given or (role == "backtranslations" and not context["derived"]["trains-teacher"]):
        return
    text, alignments = _CORPORA[role]
    uris = _absolute(given if isinstance(given, Mapping) else {"text": given})
    if role == "parallel" and context["datasets"]["train"]:
        text = "corpus/supplied-parallel"
    outputs = [text, "stats/dataset", *([alignments] if alignments and _has_alignments(given) else [])]
    if role == "devset":
        outputs.append("corpus/supplied-devset")
    yield {"uris": uris, "outputs": outputs, "dataset": f"continuation-{role}", **_fetched(list(uris.values()))}


def supplied_file(uri: str | None) -> Iterator[Variables]:
    """The continuation task that brings one file, if it is given."""
    if uri:
        uris = _absolute({"file": uri})
        yield {"uris": uris, **_fetched(list(uris.values()))}


def supplied_vocab(context: Config) -> Iterator[Variables]:
    """The continuation task that brings the vocabularies, if they are given."""
    if given := context["continuation"]["vocab"]:
        uris = _absolute(given)
        yield {"uris": uris, **_fetched(list(uris.values()))}


def continued_models(role: str, external: bool, context: Config) -> Iterator[Variables]:
    """The continuation tasks that bring models of a role (backwards, teacher, student); teachers are numbered."""
    given = context["continuation"]["models"][role]
    if not given or _is_external(given) != external:
        return
    addresses = given["urls"] or [given["url"]]
    for number, address in enumerate(addresses, start=1):
        uri = address if given["type"] == "huggingface" and not Path(address).exists() else _absolute_uri(address)
        suffix = f"-{number}" if len(addresses) > 1 else ""
        yield {
            "uri": uri,
            "model": {name: value for name, value in given.items() if name not in ("url", "urls")},
            "external-suffix" if external else "suffix": suffix,
            "outputs": _outputs_of(role, context["continuation"]["models"], bool(context["continuation"]["vocab"])),
            **({"teacher": number} if role == "teacher" else {}),
            **_fetched(_files_of(uri, given, model_file(context))),
        }


def _outputs_of(role: str, models: Config, vocab_is_given: bool) -> list[str]:
    given = models[role]
    model = {"use": f"model/{role}", "init": f"model/{role}-initial", "continue": f"model/{role}-checkpoint"}
    vocabs = [] if _is_external(given) else [f"vocab/{role}"]
    if role == "student":
        # It is the whole run's then, save for models that have one of their own.
        others = [other for other in ("teacher", "backwards") if not models[other] or _is_external(models[other])]
        vocabs = [] if vocab_is_given else ["vocab", *(f"vocab/{other}" for other in others)]
    final = ["model/student-final"] if role == "student" and given["mode"] == "use" else []
    return [model[given["mode"]], *final, *vocabs]


def _files_of(uri: str, given: Config, name: str) -> list[str]:
    """The addresses that will surely be fetched for a model."""
    if _is_external(given):
        return [] if local_path(uri) is None or not Path(uri).is_dir() else [str(path) for path in _listed(Path(uri))]
    if given["type"] == "opusmt":
        path = local_path(uri)
        if path is not None and path.is_dir():
            return [str(file) for file in _listed(path)]
        return [uri] if uri.partition("?")[0].endswith(".zip") else [join(uri, "decoder.yml")]
    if uri.partition("?")[0].endswith(".npz"):
        return [uri]
    return [join(uri, file) for file in (_CHECKPOINT_FILES if given["mode"] == "continue" else (name,))]


def _listed(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _fetched(uris: Sequence[str]) -> Variables:
    """What is fetched, for the plan, and the state of those files that are the user's own, for the digest."""
    paths = [path for uri in uris if (path := local_path(uri)) is not None]
    states = {"fingerprint": [fingerprint(str(path)) for path in paths]} if paths else {}
    return {"external": list(uris), **states}


def _absolute(uris: Config) -> dict[str, str]:
    return {name: _absolute_uri(uri) for name, uri in uris.items() if uri}


def _absolute_uri(uri: str) -> str:
    """Tasks run in folders of their own, where a relative path means nothing."""
    path = local_path(uri)
    return uri if path is None else str(path.absolute())


def _mode(model: Config | None) -> str | None:
    return model["mode"] if model else None


def _is_external(model: Config | None) -> bool:
    return bool(model and model["type"] in EXTERNAL_TYPES)


def _has_alignments(corpus: Config | None) -> bool:
    return bool(corpus and corpus.get("alignments"))
