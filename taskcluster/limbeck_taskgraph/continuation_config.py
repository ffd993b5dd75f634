"""`continuation` in the training config: what comes from earlier runs or from elsewhere instead of being made.

What the keys mean for the graph stands in docs/continuation.md.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from limbeck_taskgraph.section import Section

EXTERNAL_TYPES = ("huggingface", "ctranslate2")
_PARTS = ("tok-src", "tok-trg", "alignments")


def _check_uri(value: str) -> str:
    if not value.strip() or value != value.strip() or "\n" in value:
        raise ValueError("https://…, file:///…, s3://…, gs://…, a path, or the address of a task's artifact")
    return value


def _only_src_or_trg(value: Any) -> Any:
    """A corpus of one side may also be written as a mapping with that side only."""
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("src", "trg"):
        return next(iter(value.values()))
    return value


Uri = Annotated[str, AfterValidator(_check_uri)]
OneSide = Annotated[Uri, BeforeValidator(_only_src_or_trg)]


class UriPair(Section):
    src: Uri = Field(description="of the source language")
    trg: Uri = Field(description="of the target language")


class SuppliedCorpus(UriPair):
    tok_src: Uri | None = Field(
        default=None, description="the same text in tokens, which `alignments` count; together with the two below"
    )
    tok_trg: Uri | None = Field(default=None, description="the same of the target language")
    alignments: Uri | None = Field(default=None, description="word alignments, `0-0 1-2 …` for each line")

    @model_validator(mode="after")
    def _all_or_none(self) -> "SuppliedCorpus":
        given = [self.tok_src, self.tok_trg, self.alignments]
        if any(given) and not all(given):
            missing = [name for name, value in zip(_PARTS, given, strict=True) if not value]
            raise ValueError(
                f"tok-src, tok-trg and alignments together, or none of them ({', '.join(missing)} missing): alignments "
                "count tokens, so that without the tokens they mean nothing"
            )
        return self


class ContinuedModel(Section):
    url: Uri | None = Field(
        default=None,
        description="a model directory, its .npz, an OPUS-MT zip file or directory, or a Hugging Face id, as type says",
    )
    urls: list[Uri] = Field(default_factory=list, description="the same for several teachers, one for each")
    mode: Literal["use", "continue", "init"] = Field(
        description="use: as it is, nothing is trained; continue: train on from its checkpoint, optimizer and all; "
        "init: train anew beginning with its parameters"
    )
    type: Literal["default", "opusmt", "huggingface", "ctranslate2"] = Field(
        default="default", description="what stands at the address; default: what training here leaves behind"
    )
    source_prefix: str | None = Field(
        default=None, description="text in front of every source sentence, such as >>deu<< (OPUS-MT) or T5's task"
    )
    source_language: str | None = Field(
        default=None, description="the model's own code of the source language (huggingface, ctranslate2)"
    )
    target_language: str | None = Field(default=None, description="the same of the target language")
    revision: str | None = Field(default=None, description="of a Hugging Face repository")

    @model_validator(mode="after")
    def _fits_together(self) -> "ContinuedModel":
        if bool(self.url) == bool(self.urls):
            raise ValueError("either url, or urls for several teachers")
        if self.type in EXTERNAL_TYPES and self.mode != "use":
            raise ValueError(
                f"mode: use, for type {self.type}: such a model translates, but is not trained here (a MarianMTModel "
                "can be made a default one: python -m pipeline.model.convert … --to npz)"
            )
        if self.type == "opusmt" and self.mode == "continue":
            raise ValueError("mode: use or init, for type opusmt: it has no state of an optimizer to continue with")
        own = [name for name in ("source_language", "target_language", "revision") if getattr(self, name)]
        if own and self.type not in EXTERNAL_TYPES:
            raise ValueError(f"{own[0].replace('_', '-')} only with type huggingface or ctranslate2")
        return self

    @property
    def addresses(self) -> list[str]:
        return self.urls or [self.url or ""]

    @property
    def is_external(self) -> bool:
        """Whether it brings a tokenizer of its own, and nothing here can look into it."""
        return self.type in EXTERNAL_TYPES


class ContinuedModels(Section):
    backwards: ContinuedModel | None = Field(default=None, description="the backward model")
    teacher: ContinuedModel | None = Field(default=None, description="the teacher, or all of an ensemble")
    student: ContinuedModel | None = Field(default=None, description="the student")


class SuppliedCorpora(Section):
    parallel: SuppliedCorpus | None = Field(
        default=None, description="the cleaned training corpus; datasets.train is cleaned and merged with it"
    )
    backtranslations: SuppliedCorpus | None = Field(
        default=None, description="back-translated text, instead of translating datasets.mono-trg"
    )
    distillation: SuppliedCorpus | None = Field(
        default=None, description="what the student learns from, instead of what a teacher makes of datasets.train"
    )
    mono_src: OneSide | None = Field(default=None, description="clean source sentences to distil from")
    mono_trg: OneSide | None = Field(default=None, description="clean target sentences to back-translate")
    devset: UriPair | None = Field(default=None, description="instead of merging datasets.devtest")


class SuppliedAlignments(Section):
    priors: Uri | None = Field(default=None, description="counts of word pairs of an earlier alignment")


class Continuation(Section):
    vocab: UriPair | None = Field(
        default=None, description="SentencePiece models of both languages, instead of building them"
    )
    models: ContinuedModels = Field(default_factory=ContinuedModels)
    corpora: SuppliedCorpora = Field(default_factory=SuppliedCorpora)
    alignments: SuppliedAlignments = Field(default_factory=SuppliedAlignments)
    shortlist: Uri | None = Field(default=None, description="a lexical shortlist, instead of building one")
