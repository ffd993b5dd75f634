"""The model card, MODEL_CARD.md: what a model is, how to use it, how good it is, and what it was made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.export.markdown import megabytes, table
from pipeline.export.scores import Figures, scores_sections

_GREETINGS = {
    "cs": "Dobrý den!",
    "de": "Guten Tag!",
    "en": "Good morning!",
    "es": "Buenos días.",
    "fr": "Bonjour !",
    "it": "Buongiorno!",
    "nl": "Goedemorgen!",
    "pl": "Dzień dobry!",
    "pt": "Bom dia!",
    "ru": "Доброе утро!",
    "uk": "Доброго ранку!",
}
_ENGINES = {
    "ctranslate2": "CTranslate2",
    "huggingface": "Hugging Face Transformers",
}


@dataclass(frozen=True)
class Item:
    """A file or folder of the export: its name, its bytes, and what it is for."""

    name: str
    size: int
    use: str


@dataclass(frozen=True)
class Use:
    """How an engine is made to translate: what to know before, and code in a language."""

    engine: str
    text: str
    language: str
    code: str


def model_card(
    metadata: Mapping[str, Any], figures: Figures, items: Sequence[Item], uses: Sequence[Use], note: str = ""
) -> str:
    """The card as Markdown; `metadata` is what metadata.json has, `note` a paragraph on what was measured here."""
    parts = [
        f"# {metadata['src']} to {metadata['trg']} translation model",
        introduction(metadata),
        "## Files",
        table(["File or folder", "Use", "Size"], [[f"`{i.name}`", i.use, megabytes(i.size)] for i in items], texts=2),
        *([note] if note else []),
        "## Use",
        *(f"### {use.engine}\n\n{use.text}\n\n```{use.language}\n{use.code.strip()}\n```" for use in uses),
        *_unavailable(metadata.get("unavailable", {})),
        more_sections(metadata, figures),
        "`metadata.json` has the details: the architecture, all figures with how they were measured, the training "
        "config where it was given, and a checksum of every file.",
    ]
    return "\n\n".join(parts) + "\n"


def more_sections(metadata: Mapping[str, Any], figures: Figures) -> str:
    """The sections that do not depend on the engine: scores and provenance."""
    of_this = figures.of((metadata["src"], metadata["trg"]))
    return f"{scores_sections(of_this)}\n\n{_provenance(metadata['provenance'])}"


def greeting(language: str) -> str:
    """A short sentence of a language, to show in code: without quotes or backslashes."""
    return _GREETINGS.get(language.lower().replace("_", "-").split("-")[0], "1, 2, 3")


def introduction(metadata: Mapping[str, Any]) -> str:
    """What the model is, in a paragraph."""
    architecture = metadata["architecture"]
    sizes = architecture["dim-vocabs"]
    recurrent = " recurrent (SSRU)" if architecture["transformer-decoder-autoreg"] == "rnn" else ""
    if metadata["shared-vocabulary"]:
        vocabulary = f"a joint vocabulary of {sizes[0]:,} pieces"
    else:
        vocabulary = f"a source vocabulary of {sizes[0]:,} pieces and a target one of {sizes[1]:,}"
    return (
        "A small translation model, trained by distillation with Limbeck. It has "
        f"{metadata['parameters']:,} parameters: {architecture['enc-depth']} encoder and {architecture['dec-depth']}"
        f"{recurrent} decoder layers of width {architecture['dim-emb']}, feed-forward layers of width "
        f"{architecture['transformer-dim-ffn']}, {vocabulary}."
    )


def _unavailable(reasons: Mapping[str, str]) -> list[str]:
    if not reasons:
        return []
    lines = [f"- {_ENGINES[name]}: {reason}" for name, reason in reasons.items()]
    return ["### Not for", "\n".join(lines)]


def _provenance(provenance: Mapping[str, Any]) -> str:
    inputs = [[role, f"`{file['name']}`", f"`{file['sha256']}`"] for role, file in provenance["inputs"].items()]
    versions = ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())
    parts = ["## Provenance", f"Made with {versions}, from:", table(["Input", "File", "SHA-256"], inputs, texts=3)]
    config = provenance["config"] or {}
    if experiment := config.get("experiment"):
        name = experiment.get("name") if isinstance(experiment, dict) else None
        parts.append(f"The training config is in `metadata.json`{f', of the experiment {name}' if name else ''}.")
    datasets = config.get("datasets")
    if isinstance(datasets, dict) and any(datasets.values()):
        lines = [
            f"- {use}: {', '.join(f'`{entry}`' for entry in names) if isinstance(names, list) else names}"
            for use, names in datasets.items()
            if names
        ]
        parts.append("Data sets:\n\n" + "\n".join(lines))
    return "\n\n".join(parts)
