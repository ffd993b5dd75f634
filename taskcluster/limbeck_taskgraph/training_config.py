"""The training config: the one definition of its keys, types, defaults and their meaning.

JSON Schema, the table in docs/training-config.md and the defaults all come from the classes below. Keys that configs
of the field already have keep their names (kebab-case, as in YAML).
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from limbeck_taskgraph.continuation import idle_keys
from limbeck_taskgraph.continuation_config import Continuation
from limbeck_taskgraph.section import Section

LOCALE = re.compile(r"[a-z]{2,3}(_[a-z]{4})?(_[A-Z]{2})?")


def _check_locale(value: str) -> str:
    if not LOCALE.fullmatch(value):
        raise ValueError("a locale such as en, de, zh_hant or sr_cyrl")
    return value


def _check_multiple_of_8(value: int) -> int:
    if value % 8:
        raise ValueError(f"a multiple of 8, such as {value // 8 * 8 or 8} or {value // 8 * 8 + 8}")
    return value


def _check_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value):
        raise ValueError("up to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit")
    return value


def _check_dataset(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*_\S.*", value):
        raise ValueError(
            "importer_name, such as gettext_Django, url_https://host/corpus.[LANG].zst or file_corpus.[LANG].zst"
        )
    return value


Locale = Annotated[str, AfterValidator(_check_locale)]
Dataset = Annotated[str, AfterValidator(_check_dataset)]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Threshold = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
MarianValue = str | int | float | bool | list[str | int | float | bool]


class MonoMaxSentences(Section):
    total: Positive | None = Field(default=None, description="how many sentences of all data sets together")
    per_dataset: Positive | None = Field(default=None, description="how many sentences of each data set")


class ThresholdPerDataset(Section):
    default_threshold: Threshold = Field(default=0.0, description="0 switches the tool off")
    dataset_thresholds: dict[str, Threshold] = Field(default_factory=dict)


class Monocleaner(Section):
    mono_src: ThresholdPerDataset = Field(default_factory=ThresholdPerDataset)
    mono_trg: ThresholdPerDataset = Field(default_factory=ThresholdPerDataset)


class HpltMinDocScore(Section):
    mono_src: float = Field(default=0.0, description="the least score of a document of hplt_ data sets")
    mono_trg: float = Field(default=0.0, description="the same of the target language")


class Cleaning(Section):
    default: dict[str, Any] = Field(
        default_factory=dict, description="rule: threshold, or rule: false, for every data set"
    )
    datasets: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="the same for one data set, by its name as listed under datasets"
    )


LayerChoice = str | list[int]


class Initialise(Section):
    encoder_layers: LayerChoice | None = Field(
        default=None,
        description="the teacher's encoder layers that the student begins with: all, alternating, every N, first, "
        "last, or a list from 1. With any key of initialise it begins with its (first) teacher's parameters",
    )
    decoder_layers: LayerChoice | None = Field(default=None, description="the same for the decoder")
    freeze: list[Literal["embeddings", "encoder", "decoder"]] | None = Field(
        default=None, description="parts of the student that keep the teacher's parameters"
    )


class Distillation(Section):
    recipe: Literal["sequence", "word", "interpolation", "hybrid", "triple", "low-data"] = Field(
        default="sequence", description="how the student is taught, see distillation.md; the keys below win over it"
    )
    nll_weight: Weight | None = Field(default=None, description="weight of the likelihood of the targets")
    word_kd_weight: Weight | None = Field(
        default=None, description="weight of the divergence from the teacher's distribution over each piece"
    )
    temperature: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="temperature at which those distributions are compared"
    )
    top_k: Positive | None = Field(
        default=None,
        description="store the teacher's likeliest pieces once, so many for each target piece, and learn from these "
        "instead of from a teacher that runs along",
    )
    encoder_hidden_weight: Weight | None = Field(
        default=None, description="weight of the difference between encoder layers of teacher and student"
    )
    decoder_hidden_weight: Weight | None = Field(default=None, description="the same for the decoder")
    hidden_loss: Literal["cosine", "mse"] | None = Field(default=None, description="how layers are compared")
    layer_map: str | dict[str, list[int]] | None = Field(
        default=None,
        description="which layers are compared: even, last, or for encoder and decoder the teacher's layer for each of "
        "the student's (0: none)",
    )
    original_fraction: Threshold | None = Field(
        default=None, description="share of sentence pairs from the original corpus; the others are distilled"
    )
    initialise: Initialise = Field(default_factory=Initialise)


class Curriculum(Section):
    teacher: list[dict[str, Any]] = Field(
        default_factory=list,
        description="stages of the teacher's training, one after the other: `mix` gives the corpora (original, "
        "backtranslated) and their weights, `until` (such as `2e of backtranslated`) when the stage ends; the last one "
        "has none. Default: what teacher-mode says",
    )
    student: list[dict[str, Any]] = Field(
        default_factory=list,
        description="the same for the student, over the corpora that its distillation reads (distilled, original). "
        "Default: one stage, mixed as distillation says",
    )


class Evaluation(Section):
    speed_seconds: Annotated[float, Field(ge=0)] = Field(
        default=8.0,
        description="how long the speed of a model is measured on each test set; 0: speed and memory are not",
    )
    comet: str | None = Field(
        default=None,
        description="a COMET model to score translations with, a path or a name of the hub (extra `comet`)",
    )
    browser: bool = Field(
        default=False,
        description="also evaluate the student in Firefox's engine itself; needs Node.js where tasks run",
    )
    shortlist: bool = Field(
        default=False, description="students translate test sets with the lexical shortlist, as they do in the browser"
    )


class Shortlist(Section):
    first: Positive = Field(
        default=50, description="so many first pieces of the target vocabulary are always candidates"
    )
    best: Positive = Field(default=50, description="so many candidates are kept for each source piece")


class Experiment(Section):
    name: Annotated[str, AfterValidator(_check_name)] = Field(description="what the run is called")
    src: Locale = Field(description="source language")
    trg: Locale = Field(description="target language")
    archive_corpora: bool = Field(default=False, description="also publish the corpora, not only the models")
    teacher_ensemble: Positive = Field(default=1, description="how many teachers; the seed of each is its number")
    teacher_mode: Literal["one-stage", "two-stage"] = Field(
        default="two-stage",
        description="two-stage: 60 % original and 40 % back-translated until 2 epochs of the latter, then original "
        "only; one-stage: 70 % and 30 % throughout. Without back-translations both are the original corpus",
    )
    teacher_decoder: Literal["ctranslate2", "marian"] = Field(
        default="ctranslate2", description="CTranslate2 decodes; marian is accepted and means the same"
    )
    student_model: Literal["tiny", "base", "base-memory"] = Field(
        default="tiny", description="the student's architecture"
    )
    corpus_max_sentences: Positive | None = Field(
        default=None, description="sentence pairs of the merged corpus at most"
    )
    dev_max_sentences: Positive | None = Field(default=None, description="sentence pairs of the merged devset at most")
    mono_max_sentences_src: MonoMaxSentences = Field(default_factory=MonoMaxSentences)
    mono_max_sentences_trg: MonoMaxSentences = Field(default_factory=MonoMaxSentences)
    spm_sample_size: Positive = Field(default=10_000_000, description="sentences that the vocabulary is trained on")
    spm_vocab_size: Annotated[int, Field(ge=8), AfterValidator(_check_multiple_of_8)] = Field(
        default=32_000, description="pieces of the vocabulary"
    )
    spm_vocab_split: bool = Field(default=False, description="one vocabulary for each language instead of a joint one")
    spm_norm_rule: Literal["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"] = Field(
        default="nmt_nfkc", description="SentencePiece's normalisation rule"
    )
    best_model: Literal["chrf", "ce-mean-words", "bleu-detok"] = Field(
        default="chrf", description="the validation metric that chooses the best model and stops training early"
    )
    cleaning: Cleaning = Field(default_factory=Cleaning, description="rules and thresholds of corpus cleaning")
    distillation_filter_fraction: Fraction | None = Field(
        default=None,
        description="the worst fraction of the distilled corpus to drop, as judged by the backward model. Default: "
        "0.05 when the run has a backward model anyway (for mono-trg), otherwise 0; a number asks for a backward model",
    )
    distillation: Distillation = Field(default_factory=Distillation)
    curriculum: Curriculum = Field(default_factory=Curriculum)
    quantization_target: Literal["browser", "ctranslate2"] | None = Field(
        default=None,
        description="the engine in whose 8-bit arithmetic the student is fine-tuned. Default: it is not fine-tuned",
    )
    quantization_saturation: bool = Field(
        default=False,
        description="that fine-tuning also simulates sums that do not fit in 16 bits, as the browser has on older "
        "processors; for quantization-target browser",
    )
    shortlist: Shortlist = Field(default_factory=Shortlist)
    browser_export: bool = Field(
        default=True, description="also write the student as Firefox's engine reads it, 8-bit model, shortlist and all"
    )
    evaluation: Evaluation = Field(default_factory=Evaluation)
    augmentation: Literal["defaults", "none"] | dict[str, float] | None = Field(
        default=None,
        description="changes made to the text of teachers and students at random, see augmentation.md: defaults, none, "
        "or the chance of each. Default: defaults, but none for a student with distillation.top-k",
    )
    opuscleaner_mode: Literal["custom", "defaults"] = Field(
        default="defaults", description="accepted from existing configs; Limbeck cleans by experiment.cleaning"
    )
    bicleaner: ThresholdPerDataset = Field(
        default_factory=ThresholdPerDataset, description="accepted from existing configs; only 0 (off) is supported"
    )
    monocleaner: Monocleaner = Field(
        default_factory=Monocleaner, description="accepted from existing configs; only 0 (off) is supported"
    )
    hplt_min_doc_score: HpltMinDocScore = Field(default_factory=HpltMinDocScore)

    @model_validator(mode="after")
    def _languages_differ(self) -> "Experiment":
        if self.src == self.trg:
            raise ValueError(f"two different languages: src and trg are both {self.src}")
        return self


class Datasets(Section):
    train: list[Dataset] = Field(
        default_factory=list, description="parallel training data; needed unless continuation brings a corpus"
    )
    devtest: list[Dataset] = Field(
        default_factory=list,
        description="parallel data for validation during training; needed unless continuation.corpora.devset is given",
    )
    test: list[Dataset] = Field(default_factory=list, description="parallel data for the final evaluation")
    mono_src: list[Dataset] = Field(default_factory=list, description="source sentences to distil from")
    mono_trg: list[Dataset] = Field(default_factory=list, description="target sentences to back-translate")


class MarianArgs(Section):
    training_backward: dict[str, MarianValue] = Field(default_factory=dict)
    training_teacher: dict[str, MarianValue] = Field(default_factory=dict)
    training_student: dict[str, MarianValue] = Field(default_factory=dict)
    training_student_finetuned: dict[str, MarianValue] = Field(default_factory=dict)
    decoding_backward: dict[str, MarianValue] = Field(default_factory=dict)
    decoding_teacher: dict[str, MarianValue] = Field(default_factory=dict)


class Taskcluster(Section):
    split_chunks: Positive = Field(default=20, description="into how many tasks the translation of a corpus is split")
    upload_bucket: Literal["development", "production"] = "development"
    worker_classes: dict[str, Literal["gcp-standard", "gcp-spot"]] = Field(default_factory=dict)


class UploadArtifacts(Section):
    url: str | None = Field(
        default=None, description="where results are published: any fsspec URL, such as s3://bucket/models or a folder"
    )
    artifacts: list[Literal["export", "browser", "report", "student", "teacher", "backwards", "vocab"]] = Field(
        default=["export", "browser", "report"],
        description="what is published, below URL/SRC-TRG/NAME; with experiment.archive-corpora the corpora, too",
    )
    overwrite: bool = Field(default=False, description="replace files of another content that are there already")


class TrainingConfig(Section):
    experiment: Experiment
    datasets: Datasets
    marian_args: MarianArgs = Field(
        default_factory=MarianArgs, description="hyper-parameters by Marian's option names, merged over the defaults"
    )
    continuation: Continuation = Field(default_factory=Continuation)
    target_stage: str = Field(default="all-pipeline", description="what to run up to: a kind of task, or a stage")
    previous_group_ids: list[str] = Field(
        default_factory=list,
        description="earlier runs whose finished tasks are taken by their labels, whatever they mean; without it "
        "finished tasks of every earlier run are found by their digests",
    )
    existing_tasks: dict[str, str] = Field(
        default_factory=dict, description="label: id of the finished task that stands for it, whatever it means"
    )
    start_task_prefix: str | None = Field(
        default=None, description="tasks whose labels begin so, and all that depends on them, run anew"
    )
    upload_artifacts: UploadArtifacts = Field(default_factory=UploadArtifacts)
    taskcluster: Taskcluster = Field(default_factory=Taskcluster)
    wandb_publication: bool = Field(
        default=False,
        description="publish curves to Weights & Biases (extra `tracking`; WANDB_API_KEY, or WANDB_MODE=offline)",
    )

    def to_parameters(self) -> dict[str, Any]:
        """The config with all its defaults as plain values under kebab-case keys."""
        return self.model_dump(mode="json", by_alias=True)

    def warnings(self) -> list[str]:
        """What the config asks for and Limbeck does otherwise or not at all, as sentences for the person."""
        found = []
        experiment = self.experiment
        if experiment.teacher_decoder == "marian":
            found.append("experiment.teacher-decoder: marian is accepted; CTranslate2 decodes.")
        thresholds = {
            "experiment.bicleaner": [experiment.bicleaner],
            "experiment.monocleaner": [experiment.monocleaner.mono_src, experiment.monocleaner.mono_trg],
        }
        for key, sections in thresholds.items():
            if any(s.default_threshold or any(s.dataset_thresholds.values()) for s in sections):
                found.append(f"{key}: this tool is not run; experiment.cleaning's rules clean the data.")
        return found + [f"{key} is not read: {reason}." for key, reason in idle_keys(self.to_parameters()).items()]
