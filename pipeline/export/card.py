"""The model card: what a model is, how good it is, and how to use it."""

from collections.abc import Mapping, Sequence
from typing import Any

_CARD = """# {src} to {trg} translation model

A small translation model, trained by distillation with Limbeck. It has {parameters:,} parameters: {enc_depth} encoder
and {dec_depth} decoder layers of width {dim_emb}, feed-forward layers of width {ffn}, {vocabulary}.

## Files

{files}

## Use

With `pip install ctranslate2 sentencepiece`, in this folder:

```python
{snippet}
```

`ctranslate2/float32` is used in the same way, without the rounding to eight bits.

## Scores

{scores}

`metadata.json` has the details: the architecture, all scores with their signatures, and a checksum of every file.
"""

_SNIPPET = """import ctranslate2
import sentencepiece

source = sentencepiece.SentencePieceProcessor(model_file="ctranslate2/int8/{src_vocab}")
target = sentencepiece.SentencePieceProcessor(model_file="ctranslate2/int8/{trg_vocab}")
translator = ctranslate2.Translator("ctranslate2/int8")

sentences = ["{example}"]
pieces = source.encode(sentences, out_type=str)
results = translator.translate_batch(pieces, beam_size=1, disable_unk=True)
print(target.decode([result.hypotheses[0] for result in results]))"""


def model_card(metadata: Mapping[str, Any], example: str) -> str:
    """The card as Markdown; `example` is a source sentence to show in the code, without quotes or backslashes."""
    architecture = metadata["architecture"]
    sizes = metadata["vocabularies"]
    shared = sizes["shared"]
    snippet = _SNIPPET.format(src_vocab=sizes["src"]["file"], trg_vocab=sizes["trg"]["file"], example=example)
    return _CARD.format(
        src=metadata["src"],
        trg=metadata["trg"],
        parameters=metadata["parameters"],
        enc_depth=architecture["enc-depth"],
        dec_depth=architecture["dec-depth"],
        dim_emb=architecture["dim-emb"],
        ffn=architecture["transformer-dim-ffn"],
        vocabulary=f"a {'joint' if shared else 'source'} vocabulary of {sizes['src']['size']:,} pieces"
        + ("" if shared else f" and a target one of {sizes['trg']['size']:,}"),
        files=_files(metadata),
        snippet=snippet,
        scores=_scores(metadata["metrics"]),
    )


def _files(metadata: Mapping[str, Any]) -> str:
    uses = {
        "ctranslate2/int8": "for CTranslate2, eight bits: the small and fast one",
        "ctranslate2/float32": "for CTranslate2, full precision",
        "marian": "the trained weights, in Marian's format",
        "huggingface": "for transformers; its README says what the plain class of transformers loses",
    }
    sizes = metadata["bytes"]
    rows = [f"| `{name}` | {sizes[name] / 1e6:.1f} MB | {use} |" for name, use in uses.items() if name in sizes]
    return "\n".join(["| Folder | Size | |", "| --- | ---: | --- |", *rows])


def _scores(metrics: Sequence[Mapping[str, Any]]) -> str:
    if not metrics:
        return "This model was exported without an evaluation."
    rows = [
        f"| {entry.get('dataset', '')} | {entry.get('name', '')} | {_score(entry, 'chrf')} | {_score(entry, 'bleu')} |"
        for entry in metrics
    ]
    return "\n".join(["| Test set | Model | chrF | BLEU |", "| --- | --- | ---: | ---: |", *rows])


def _score(entry: Mapping[str, Any], metric: str) -> str:
    value = entry.get(metric)
    score = value.get("score") if isinstance(value, Mapping) else value
    return f"{score:.1f}" if isinstance(score, int | float) else "–"
