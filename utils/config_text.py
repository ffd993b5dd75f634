"""The text of a new training config: its keys with the comments that the config's definition has for them."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel

from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.common.languages import base_language
from pipeline.data.opus_index import Corpus

if TYPE_CHECKING:
    from utils.config_new import Choice

WIDTH = 110
# Sentence pairs from which the field calls a pair high or medium in resources; below, low.
HIGH, MEDIUM = 80_000_000, 20_000_000
# The less parallel text there is, the more the teacher gains from back-translated text.
MOST_MONO_TRG = {"high": 50_000_000, "medium": 100_000_000, "low": 200_000_000}
# Languages whose pieces are shared with hardly any other.
OWN_VOCABULARY = ("zh", "yue", "ja", "ko")


class ConfigWriter:
    """Lines of YAML. Comments of keys are their descriptions in the definition of the config."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def comment(self, text: str, depth: int = 0) -> None:
        """A comment of whole lines, broken where it is too long."""
        indent = "  " * depth
        self._lines += textwrap.wrap(
            text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False
        )

    def blank(self) -> None:
        self._lines.append("")

    def section(self, path: str, note: str = "") -> None:
        """A key that holds a mapping or a list; `note` is added to its comment."""
        self._describe(path, note)
        self._lines.append(f"{_indent(path)}{_key(path)}:")

    def value(self, path: str, value: Any, note: str = "") -> None:
        """A key with its value."""
        self._describe(path, note)
        self._lines.append(f"{_indent(path)}{_key(path)}: {_flow(value)}")

    def example(self, path: str, value: Any, note: str = "") -> None:
        """A key with a value, commented out."""
        self._describe(path, note)
        self._lines.append(f"{_indent(path)}# {_key(path)}: {_flow(value)}")

    def item(self, path: str, value: str, remark: str = "", used: bool = True) -> None:
        """An entry of the list under a key; commented out unless it is `used`."""
        line = f"{_indent(path)}  {'' if used else '# '}- {_flow(value)}"
        self._lines.append(f"{line}  # {remark}" if remark else line)

    def _describe(self, path: str, note: str) -> None:
        text = " ".join(part for part in (description(path), note) if part)
        if text:
            self.comment(text, path.count("."))


def description(path: str) -> str:
    """What the definition of the config says of a key, as a sentence."""
    section: type[BaseModel] = TrainingConfig
    text = ""
    for part in path.split("."):
        field = next(field for name, field in section.model_fields.items() if part in (field.alias, name))
        text = field.description or ""
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            section = field.annotation
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


def resource_level(pairs: int) -> str:
    """What the field calls a pair with so many sentence pairs: high, medium or low; medium when it is not known."""
    return "high" if pairs >= HIGH else "medium" if pairs >= MEDIUM or not pairs else "low"


def config_text(src: str, trg: str, name: str, choice: "Choice") -> str:
    """The whole config as YAML."""
    pairs = sum(corpus.sentences or 0 for corpus in choice.train)
    level = resource_level(pairs)
    writer = ConfigWriter()
    writer.comment(f"How to train a small translation model from {src} to {trg}.")
    writer.comment(
        "Every key that is not here has a default, see docs/training-config.md. Before a run, `limbeck config check` "
        "finds mistakes, and `limbeck preflight` asks for the data and looks at the machine."
    )
    if pairs:
        writer.comment(
            f"OPUS has {pairs:,} sentence pairs, some of them several times: {level} resources, as the field puts it "
            f"(high from {HIGH // 10**6} million, medium from {MEDIUM // 10**6} million)."
        )
    writer.blank()
    _experiment(writer, src, trg, name, level)
    writer.blank()
    _datasets(writer, choice)
    writer.blank()
    _hyper_parameters(writer, level)
    writer.blank()
    _running(writer)
    return writer.text


def _experiment(writer: ConfigWriter, src: str, trg: str, name: str, level: str) -> None:
    writer.section("experiment")
    writer.value("experiment.name", name)
    writer.value("experiment.src", src)
    writer.value("experiment.trg", trg)
    writer.value("experiment.student-model", "tiny", "Tiny is the smallest and fastest; base translates better.")
    writer.value("experiment.teacher-ensemble", 1, "Two translate a little better, for twice the work.")
    writer.value("experiment.teacher-mode", "two-stage")
    writer.value("experiment.best-model", "chrf")
    writer.blank()
    writer.value("experiment.spm-vocab-size", 32000)
    own = [language for language in (src, trg) if base_language(language) in OWN_VOCABULARY]
    writer.value(
        "experiment.spm-vocab-split", bool(own), f"{' and '.join(own)} shares few pieces with others." if own else ""
    )
    writer.blank()
    writer.example("experiment.corpus-max-sentences", 100_000_000)
    writer.section("experiment.mono-max-sentences-src", "Of the source sentences to distil from:")
    writer.value("experiment.mono-max-sentences-src.total", 100_000_000)
    writer.value("experiment.mono-max-sentences-src.per-dataset", 50_000_000)
    most = MOST_MONO_TRG[level]
    writer.section(
        "experiment.mono-max-sentences-trg",
        "Of the target sentences to back-translate; the fewer parallel sentences there are, the more of these help:",
    )
    writer.value("experiment.mono-max-sentences-trg.total", most)
    writer.value("experiment.mono-max-sentences-trg.per-dataset", most // 2)
    writer.blank()
    writer.section("experiment.cleaning")
    writer.value("experiment.cleaning.default", {})
    writer.example("experiment.cleaning.datasets", {"opus_OpenSubtitles/v2024": {"max-words": 60, "length-ratio": 4.0}})
    writer.example("experiment.distillation-filter-fraction", 0.05)
    writer.section("experiment.distillation")
    note = "low-data is for pairs like this one." if level == "low" else ""
    writer.value("experiment.distillation.recipe", "sequence", note)
    writer.example("experiment.augmentation", "defaults")


def _datasets(writer: ConfigWriter, choice: "Choice") -> None:
    writer.section("datasets")
    train = "datasets.train"
    if choice.train:
        writer.section(train, _sum(choice.train))
        for corpus in choice.train:
            writer.item(train, corpus.name, _sizes(corpus))
    else:
        writer.section(train)
        writer.comment(f"None is listed: {choice.problems['train']}.", 2)
        _examples(writer, train, "opus_ParaCrawl/v9")
        writer.comment("Replace this one; a run would say that it is not there:", 2)
        writer.item(train, "file_data/train.[LANG].zst")
    for corpus, reason in choice.left_out:
        writer.item(train, corpus.name, f"{reason}; {_sizes(corpus)}", used=False)
    for use, names in (("devtest", choice.evaluation.devtest), ("test", choice.evaluation.test)):
        writer.section(f"datasets.{use}")
        if not names:
            writer.comment("No public test set is known for this pair. Replace this by sentences of your own:", 2)
            writer.item(f"datasets.{use}", f"file_data/{use}.[LANG].zst")
        for name in names:
            writer.item(f"datasets.{use}", name)
    for use in ("mono-src", "mono-trg"):
        _monolingual(writer, use, choice)


def _monolingual(writer: ConfigWriter, use: str, choice: "Choice") -> None:
    path, corpora = f"datasets.{use}", choice.mono.get(use, [])
    if corpora:
        writer.section(path, _sum(corpora))
        for corpus in corpora:
            writer.item(path, corpus.name, _sizes(corpus))
    else:
        writer.value(path, [])
    if problem := choice.problems.get(use):
        writer.comment(f"{'More may be there' if corpora else 'None is listed'}: {problem}.", 2)
    for corpus in choice.more_mono.get(use, []):
        writer.item(path, corpus.name, _sizes(corpus), used=False)
    if not corpora and not choice.more_mono.get(use):
        _examples(writer, path, "news-crawl_news.2023")


def _examples(writer: ConfigWriter, path: str, name: str) -> None:
    writer.comment("A corpus is named like these:", 2)
    writer.item(path, name, used=False)
    writer.item(path, "url_https://example.org/corpus.[LANG].zst", used=False)


def _sum(corpora: Sequence[Corpus]) -> str:
    said = [f"{len(corpora)} found"]
    if sentences := sum(corpus.sentences or 0 for corpus in corpora):
        said.append(f"{sentences:,} sentences")
    if size := sum(corpus.size or 0 for corpus in corpora):
        said.append(f"{size / 1e6:,.0f} MB compressed")
    return f"{', '.join(said)}; the largest first."


def _sizes(corpus: Corpus) -> str:
    said = [f"{corpus.sentences:,} sentences"] if corpus.sentences is not None else []
    said += [f"{corpus.size / 1e6:,.1f} MB"] if corpus.size is not None else []
    return ", ".join(said) or "size not known"


def _hyper_parameters(writer: ConfigWriter, level: str) -> None:
    writer.section("marian-args")
    writer.value("marian-args.training-backward", {"early-stopping": 5})
    teacher: dict[str, Any] = {"early-stopping": 20}
    if level == "low":
        writer.comment(
            "Splitting words in more random ways makes more of little text (default: 0.5 for both sides).", 1
        )
        teacher["sentencepiece-alphas"] = [0.2, 0.2]
    writer.value("marian-args.training-teacher", teacher)
    writer.value("marian-args.training-student", {"early-stopping": 15})
    writer.value("marian-args.decoding-backward", {"beam-size": 4})
    writer.comment("On GPUs float16 is faster: {beam-size: 8, precision: float16}.", 1)
    writer.value("marian-args.decoding-teacher", {"beam-size": 8})


def _running(writer: ConfigWriter) -> None:
    writer.comment("Models, corpora and vocabularies of earlier runs, or of elsewhere, instead of making them:")
    writer.comment("continuation: {models: {backwards: {url: https://…/artifacts/public/build, mode: use}}}")
    writer.blank()
    writer.value("target-stage", "all-pipeline", "Such as train-teacher-model, to stop there.")
    writer.value("wandb-publication", False)
    writer.section("taskcluster")
    writer.value("taskcluster.split-chunks", 20)


def _indent(path: str) -> str:
    return "  " * path.count(".")


def _key(path: str) -> str:
    return path.rpartition(".")[2]


def _flow(value: Any) -> str:
    """A value on one line of YAML, quoted where it must be."""
    if isinstance(value, dict | list):
        return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()
    return str(yaml.safe_dump(value, width=10_000)).removesuffix("...\n").strip()
