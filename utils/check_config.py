"""What only the pipeline's steps know of a config's values, checked before anything runs instead of hours later."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from limbeck_taskgraph.config_file import ConfigError
from limbeck_taskgraph.parameters import distillation_values, template_context
from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.clean.rules import check_overrides
from pipeline.common.augment.augmenter import parse_augmentation
from pipeline.common.errors import UserError
from pipeline.common.languages import base_language, identifier_codes
from pipeline.data.names import split_dataset
from pipeline.model.config import ModelConfig
from pipeline.model.decoding import decoding_options
from pipeline.train.curriculum import parse_curriculum
from pipeline.train.distillation import (
    RECIPE_OPTIONS,
    check_same_every_time,
    chosen_layers,
    layer_pairs,
    parse_distillation,
    parse_initialisation,
)
from pipeline.train.options import TrainingOptions, model_config, parse_options

# Target stages that are nothing but the student as a CTranslate2 model.
_CTRANSLATE2_STAGES = ("distillation-student-model-quantize", "evaluate-quantized")


def check_values(config: TrainingConfig) -> None:
    """Check languages, data set names, cleaning rules, distillation, training and decoding options.

    Raises ConfigError with a line for each that is wrong: the key's path and what the step says of it.
    """
    problems = [f"{key}: {problem}" for key, check in _checks(config) if (problem := _problem(check))]
    if problems:
        raise ConfigError("\n".join(problems))


def _checks(config: TrainingConfig) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "experiment.src", partial(_check_language, config.experiment.src)
    yield "experiment.trg", partial(_check_language, config.experiment.trg)
    for use, names in config.datasets.model_dump(by_alias=True).items():
        for number, name in enumerate(names):
            yield f"datasets.{use}.{number}", partial(split_dataset, name)
    cleaning = config.experiment.cleaning
    yield "experiment.cleaning.default", partial(check_overrides, cleaning.default)
    for name, rules in cleaning.datasets.items():
        yield f"experiment.cleaning.datasets.{name}", partial(check_overrides, rules)
    yield "experiment.distillation", partial(_check_distillation, config)
    yield "experiment.augmentation", partial(parse_augmentation, config.experiment.augmentation)
    yield "experiment.curriculum.teacher", partial(_check_teacher_curriculum, config)
    yield "experiment.curriculum.student", partial(_check_student_curriculum, config)
    presets = {
        "training-backward": ("backward", config.marian_args.training_backward),
        "training-teacher": ("teacher", config.marian_args.training_teacher),
        "training-student": (f"student-{config.experiment.student_model}", config.marian_args.training_student),
    }
    for key, (preset, options) in presets.items():
        yield f"marian-args.{key}", partial(_check_training, config, key, preset, options)

    finetuning = config.marian_args.training_student_finetuned
    yield "marian-args.training-student-finetuned", partial(parse_options, "student-finetuned", finetuning)
    yield "experiment.quantization-saturation", partial(_check_quantization, config)
    yield "experiment.quantization-target", partial(_check_finetuning, config)
    yield "upload-artifacts.artifacts", partial(_check_uploads, config)
    yield "experiment.evaluation.browser", partial(_check_browser_evaluation, config)
    for key, values in config.marian_args.model_dump(by_alias=True).items():
        if key.startswith("decoding-"):
            yield f"marian-args.{key}", partial(decoding_options, values)


def _check_distillation(config: TrainingConfig) -> None:
    given, initialise = distillation_values(config.experiment.distillation.model_dump(by_alias=True))
    distillation, initialisation = parse_distillation(given), parse_initialisation(initialise)
    try:
        student = parse_options(
            f"student-{config.experiment.student_model}",
            {**RECIPE_OPTIONS.get(distillation.recipe, {}), **config.marian_args.training_student},
        )
        teacher = parse_options("teacher", config.marian_args.training_teacher)
    except UserError:
        return  # said where they stand
    if distillation.top_k:
        check_same_every_time(student, bool(parse_augmentation(config.experiment.augmentation)))
    if distillation.hidden_weights and config.experiment.teacher_ensemble > 1:
        raise UserError("hidden states can be compared with one teacher, but teacher-ensemble is above 1")
    if config.continuation.models.teacher:
        return  # its layers are not known before it is fetched; the trainer compares them
    depths = {
        "encoder": (student.enc_depth, teacher.enc_depth),
        "decoder": (student.dec_depth, teacher.dec_depth),
    }
    for side in distillation.hidden_weights:
        layer_pairs(distillation.layer_map, side, *depths[side])
    if initialise:
        _check_same_shape(student, teacher)
        chosen_layers(initialisation.encoder_layers, "encoder", *depths["encoder"])
        chosen_layers(initialisation.decoder_layers, "decoder", *depths["decoder"])


def _check_teacher_curriculum(config: TrainingConfig) -> None:
    if stages := config.experiment.curriculum.teacher:
        corpora = config.continuation.corpora
        backtranslated = config.datasets.mono_trg or corpora.mono_trg or corpora.backtranslations
        parse_curriculum(stages, ["original", "backtranslated"] if backtranslated else ["original"])


def _check_student_curriculum(config: TrainingConfig) -> None:
    if stages := config.experiment.curriculum.student:
        given, _ = distillation_values(config.experiment.distillation.model_dump(by_alias=True))
        parse_curriculum(stages, parse_distillation(given).corpora)


def _check_same_shape(student: TrainingOptions, teacher: TrainingOptions) -> None:
    """Raise UserError unless layers of the teacher can be copied into the student."""
    for name in ("dim_emb", "transformer_dim_ffn", "transformer_heads"):
        here, there = getattr(student, name), getattr(teacher, name)
        if here != there:
            raise UserError(
                f"initialise copies layers, but the teacher has {name.replace('_', '-')} {there} and the student "
                f"{here}: give both the same under marian-args.training-teacher or training-student"
            )


def _check_training(config: TrainingConfig, key: str, preset: str, values: Mapping[str, Any]) -> None:
    options, experiment = parse_options(preset, values), config.experiment
    sizes = (experiment.spm_vocab_size, experiment.spm_vocab_size)
    model = model_config(options, sizes, shared_vocab=not experiment.spm_vocab_split)
    if key == "training-student" and experiment.browser_export and config.target_stage in ("all-pipeline", "export"):
        _check_browser(model)
    if not model.is_recurrent:
        return
    if key == "training-backward":
        raise UserError(
            "transformer-decoder-autoreg rnn: the backward model scores and translates by CTranslate2, which has no "
            "recurrent decoder (SSRU): use self-attention"
        )
    if key == "training-student" and config.target_stage in _CTRANSLATE2_STAGES:
        raise UserError(
            f"transformer-decoder-autoreg rnn: {config.target_stage} is of CTranslate2, which has no recurrent decoder "
            "(SSRU): use self-attention, or another target-stage, such as export (for the browser, and as Marian's)"
        )


def _check_quantization(config: TrainingConfig) -> None:
    experiment = config.experiment
    if experiment.quantization_saturation and experiment.quantization_target != "browser":
        raise UserError("it is of the browser's arithmetic: set quantization-target to browser, or leave it out")


def _check_finetuning(config: TrainingConfig) -> None:
    student = config.marian_args.training_student
    recurrent = student.get("transformer-decoder-autoreg", "self-attention") == "rnn"
    if config.experiment.quantization_target == "ctranslate2" and recurrent:
        raise UserError("CTranslate2 has no recurrent decoder (SSRU), which training-student asks for: use browser")


def _check_uploads(config: TrainingConfig) -> None:
    if not config.upload_artifacts.url:
        return
    wanted, parameters = config.upload_artifacts.artifacts, config.to_parameters()
    if "browser" in wanted and not config.experiment.browser_export:
        raise UserError("there is no browser export to publish: experiment.browser-export is false")
    if "backwards" in wanted and not template_context(parameters)["derived"]["backward-model"]:
        raise UserError("this run has no backward model to publish: it needs mono-trg or distillation-filter-fraction")


def _check_browser_evaluation(config: TrainingConfig) -> None:
    if config.experiment.evaluation.browser and not config.experiment.browser_export:
        raise UserError("there is nothing to evaluate without experiment.browser-export: set both or neither")


def _check_browser(model: ModelConfig) -> None:
    if model.transformer_preprocess or model.transformer_postprocess_top:
        from pipeline.model.formats import bergamot  # here, because torch takes seconds

        try:
            bergamot.check_architecture(model)
        except UserError as error:
            raise UserError(f"{error}; or set experiment.browser-export to false") from error


def _check_language(locale: str) -> None:
    # Two letters that no table knows are a slip; three-letter codes are too many to list.
    if len(base_language(locale)) == 2 and identifier_codes(locale) == (base_language(locale),):
        raise UserError(f"found {locale!r}; needed: an ISO 639 code of a language, such as en, de or zh_hant")


def _problem(check: Callable[[], object]) -> str:
    try:
        check()
    except UserError as error:
        return str(error)
    return ""
