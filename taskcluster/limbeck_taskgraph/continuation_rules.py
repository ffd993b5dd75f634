"""What in a training config does not go together with what `continuation` brings."""

from collections.abc import Iterator

from limbeck_taskgraph.continuation_config import ContinuedModel
from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.train.distillation import parse_distillation

Problem = tuple[tuple[str, ...], str]  # the key's path, and what is wrong with it


def continuation_problems(config: TrainingConfig) -> Iterator[Problem]:
    """Every contradiction between `continuation` and the rest, as the place and a sentence."""
    yield from _data(config)
    yield from _models(config)
    yield from _distillation(config)


def _data(config: TrainingConfig) -> Iterator[Problem]:
    corpora, datasets = config.continuation.corpora, config.datasets
    student = config.continuation.models.student
    brings_text = corpora.parallel or corpora.distillation or (student and student.mode == "use")
    if not (datasets.train or brings_text):
        yield (
            ("datasets", "train"),
            "there is nothing to train on; needed: a list of parallel data sets, or a corpus under "
            "continuation.corpora (parallel or distillation)",
        )
    if not (datasets.devtest or corpora.devset):
        yield (
            ("datasets", "devtest"),
            "there is nothing to validate on; needed: a list of parallel data sets, or continuation.corpora.devset",
        )
    if corpora.distillation and datasets.train:
        yield (
            ("continuation", "corpora", "distillation"),
            "it is what the student learns from, so nothing would be done with datasets.train: leave one of them out",
        )
    if corpora.distillation and not config.continuation.vocab:
        yield (
            ("continuation", "corpora", "distillation"),
            "continuation.vocab is needed with it: the vocabulary that its teacher and the student share, which is not "
            "built from translations",
        )
    if corpora.parallel and corpora.parallel.alignments and datasets.train:
        yield (
            ("continuation", "corpora", "parallel", "alignments"),
            "datasets.train is merged with this corpus, which changes its lines: leave alignments, tok-src and tok-trg "
            "out (they are made anew), or datasets.train",
        )
    if (
        student
        and student.mode == "use"
        and not (config.continuation.shortlist or datasets.train or corpora.parallel or corpora.distillation)
    ):
        yield (
            ("continuation", "models", "student"),
            "an export has a lexical shortlist, and there is no corpus to build it from: give continuation.shortlist",
        )


def _models(config: TrainingConfig) -> Iterator[Problem]:
    models, teachers = config.continuation.models, config.experiment.teacher_ensemble
    for role in ("backwards", "teacher", "student"):
        model: ContinuedModel | None = getattr(models, role)
        if model is None:
            continue
        place = ("continuation", "models", role)
        wanted = teachers if role == "teacher" else 1
        if len(model.addresses) != wanted:
            ensemble = (
                f"experiment.teacher-ensemble is {teachers}" if role == "teacher" else f"there is one {role} model"
            )
            yield (*place, "urls"), f"found {_count(len(model.addresses), 'address')}; needed: {wanted}, as {ensemble}"
        if len(set(model.addresses)) < len(model.addresses):
            yield (*place, "urls"), "the same address stands twice: a model that votes twice adds nothing"
        if role == "student" and (model.is_external or model.source_prefix):
            key = "type" if model.is_external else "source-prefix"
            yield (*place, key), "a student is exported, which needs a model of type default or opusmt without a prefix"
    if models.teacher and models.teacher.is_external and teachers > 1:
        yield (
            ("continuation", "models", "teacher", "type"),
            f"models of type {models.teacher.type} have vocabularies of their own and cannot vote on pieces together: "
            "set experiment.teacher-ensemble to 1",
        )
    if models.backwards and models.backwards.is_external and config.experiment.distillation_filter_fraction:
        yield (
            ("experiment", "distillation-filter-fraction"),
            f"the filter scores pairs with the backward model, and one of type {models.backwards.type} only "
            "translates: set it to 0, or give a model of type default or opusmt",
        )


def _distillation(config: TrainingConfig) -> Iterator[Problem]:
    section = config.experiment.distillation.model_dump(by_alias=True, exclude_none=True)
    initialise = {name: value for name, value in section.pop("initialise", {}).items() if value is not None}
    distillation = parse_distillation(section)
    corpora, models = config.continuation.corpora, config.continuation.models
    meets_teacher = distillation.needs_teacher or initialise or distillation.top_k
    if meets_teacher and models.teacher:
        if models.teacher.is_external:
            yield (
                ("experiment", "distillation"),
                "it compares the student with its teacher piece by piece, but a teacher of type "
                f"{models.teacher.type} has a vocabulary and a tokenizer of its own: use the recipe sequence",
            )
        elif not config.continuation.vocab:
            yield (
                ("experiment", "distillation"),
                "it compares the student with its teacher piece by piece, so both need one vocabulary: give "
                "continuation.vocab, the vocab.*.spm beside the teacher",
            )
    if initialise and models.student:
        yield (
            ("experiment", "distillation", "initialise"),
            "the student begins with continuation.models.student or with its teacher's layers, not with both",
        )
    if corpora.distillation and "distilled" not in distillation.corpora:
        yield (
            ("continuation", "corpora", "distillation"),
            f"the distillation recipe {distillation.recipe} does not read a distilled corpus: leave one of them out",
        )
    if corpora.distillation and "original" in distillation.corpora and not corpora.parallel:
        yield (
            ("continuation", "corpora", "parallel"),
            f"the distillation recipe {distillation.recipe} reads the original corpus too: give it",
        )


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 'es'}"
