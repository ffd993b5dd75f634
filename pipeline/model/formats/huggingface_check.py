"""What the two classes that load a Hugging Face directory compute, measured against the model, and its README."""

import copy
import importlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sacrebleu
import torch

from pipeline.common.errors import UserError
from pipeline.model import parity
from pipeline.model.config import ModelConfig
from pipeline.model.search import longest_translation
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import EOS_ID, UNK_ID, Vocab

EXACT_MODULE = "modeling_limbeck_marian"
EXACT_CLASS = "LimbeckMarianMTModel"


def extra(module: str) -> Any:
    """A module of the extra [huggingface]. Raises UserError when it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"Hugging Face's format needs {module.split('.')[0]}, which cannot be imported ({error}): "
            "pip install 'limbeck[huggingface]'"
        ) from error


def has_transformers() -> bool:
    """Whether transformers, of the extra [huggingface], can be imported."""
    try:
        importlib.import_module("transformers")
    except ImportError:
        return False
    return True


class HuggingFaceEngine:
    """A directory, in the class of transformers or, with `exact`, in the one that is written beside the weights.

    Ids from the padding piece on are pieces that have rows only in a model read from it; they are <unk> here.
    """

    def __init__(self, directory: Path, exact: bool) -> None:
        transformers = extra("transformers")
        self.name = EXACT_CLASS if exact else "MarianMTModel"
        cls = transformers.MarianMTModel
        if exact:
            cls = getattr(extra(f"pipeline.model.formats.{EXACT_MODULE}"), EXACT_CLASS)
        logging = transformers.utils.logging
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            self._model: Any = cls.from_pretrained(directory, dtype=torch.float32).eval()
        finally:
            if bars:
                logging.enable_progress_bar()
        self._pad = int(self._model.config.pad_token_id)

    @torch.no_grad()
    def translate(self, sources: parity.Ids, beam_size: int) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in sources]
        limits = [longest_translation(len(source) + 1) for source in sources]
        # A greedy translation goes the same way however far the batch goes; a beam's does not.
        groups = parity.batches(sources) if beam_size == 1 else [places for _, places in parity.same_limit(sources)]
        for places in groups:
            ids, mask = self._padded([sources[place] for place in places])
            options = copy.deepcopy(self._model.generation_config)
            longest = max(limits[place] for place in places) + 1
            options.update(
                num_beams=beam_size, do_sample=False, max_length=longest, min_new_tokens=1, forced_eos_token_id=None
            )
            options.suppress_tokens = sorted({UNK_ID, self._pad, *(options.suppress_tokens or [])})
            output = self._model.generate(input_ids=ids, attention_mask=mask.long(), generation_config=options)
            for place, row in zip(places, output[:, 1:].tolist(), strict=True):
                ends = [index for index, piece in enumerate(row) if piece in (EOS_ID, self._pad)]
                found[place] = row[: min([*ends, limits[place]])]
        return found

    @torch.no_grad()
    def score(self, sources: parity.Ids, targets: parity.Ids) -> list[list[float]]:
        scores: list[list[float]] = [[] for _ in sources]
        for places in parity.batches(sources, targets):
            ids, mask = self._padded([sources[place] for place in places])
            trg, trg_mask = self._padded([targets[place] for place in places])
            start = torch.full((len(places), 1), int(self._model.config.decoder_start_token_id))
            shifted = torch.cat([start, trg[:, :-1]], dim=1)
            logits = self._model(input_ids=ids, attention_mask=mask.long(), decoder_input_ids=shifted).logits
            log_probs = logits.float().log_softmax(-1).gather(2, trg.unsqueeze(-1)).squeeze(-1)
            for row, place in enumerate(places):
                scores[place] = log_probs[row][trg_mask[row]].tolist()
        return scores

    def _padded(self, ids: parity.Ids) -> tuple[torch.Tensor, torch.Tensor]:
        rows, mask = parity.padded(ids)
        return rows.masked_fill(rows >= self._pad, UNK_ID).masked_fill(~mask, self._pad), mask


@dataclass(frozen=True)
class Measured:
    """Both classes against the model; chrF of their translations, and against what; sentences tokenized alike."""

    exact: parity.Parity
    plain: parity.Parity
    chrf: tuple[float, float] | None  # of the exact class's translations and of the plain one's
    chrf_of: str
    same_tokens: str

    def describe(self) -> str:
        lines = [
            f"{EXACT_CLASS} (trust_remote_code=True) {self.exact.describe()}",
            f"MarianMTModel {self.plain.describe()}",
        ]
        if self.chrf:
            lines.append(
                f"chrF against {self.chrf_of}: {EXACT_CLASS} {self.chrf[0]:.2f}, MarianMTModel {self.chrf[1]:.2f} "
                f"({self.chrf[1] - self.chrf[0]:+.2f})"
            )
        return "\n".join([*lines, *([self.same_tokens] if self.same_tokens else [])])


def measure(folder: Path, model: Transformer, vocabs: tuple[Vocab, Vocab], sample: parity.Sample) -> Measured:
    """Compare a directory's classes and its tokenizer with the model it was written from.

    Raises UserError when the exact class is not exact.
    """
    reference = parity.TorchEngine(model)
    exact, plain = HuggingFaceEngine(folder, exact=True), HuggingFaceEngine(folder, exact=False)
    found = parity.compare(reference, exact, sample)
    parity.EXACT.check(found, EXACT_CLASS)
    found_plain = parity.compare(reference, plain, sample)
    chrf, chrf_of, same_tokens = None, "", ""
    if sample.texts:
        texts = [vocabs[1].decode(one.greedy) for one in (found, found_plain)]
        references = sample.references or texts[0]
        chrf_of = "reference translations" if sample.references else f"the translations of {EXACT_CLASS}"
        scores = [sacrebleu.corpus_chrf(hypotheses, [references]).score for hypotheses in texts]
        chrf = scores[0], scores[1]
        same_tokens = _compare_tokenizer(folder, sample)
    return Measured(found, found_plain, chrf, chrf_of, same_tokens)


def _compare_tokenizer(folder: Path, sample: parity.Sample) -> str:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer(sample.texts).input_ids
    same = sum(list(row) == [*source, EOS_ID] for row, source in zip(ids, sample.sources, strict=True))
    return f"MarianTokenizer gives the vocabulary's ids for {same}/{len(ids)} sentences"


def load_tokenizer(folder: Path) -> Any:
    """The directory's MarianTokenizer."""
    with warnings.catch_warnings():
        # It recommends sacremoses, which it constructs and never calls.
        warnings.filterwarnings("ignore", message=".*sacremoses.*")
        return extra("transformers").MarianTokenizer.from_pretrained(folder)


_README = """{front}# {title}

Trained and exported with Limbeck. {layers}.

## Use

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForSeq2SeqLM.from_pretrained(".", trust_remote_code=True)
batch = tokenizer(["…"], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
```

## Two classes

`trust_remote_code=True` loads `{exact_class}` of `{exact_module}.py` in this folder, which
computes exactly what the model was trained with. Without it (and with `MarianMTModel.from_pretrained`) transformers'
own class loads the same weights, with other positions (i/half in the exponent where Marian has i/(half-1)) and another
epsilon of layer normalisation (1e-5, not 1e-6), which are not part of the weights. What that costs:

{measured}

## Tokenizer

`MarianTokenizer` gives the ids that the model was trained with, but for two kinds of text: `</s>`, `<unk>` and `<pad>`
spelt out in a sentence become those pieces, and a sentence that begins with `>>…<<` loses that as a language tag.
{more}"""


def readme(config: ModelConfig, languages: tuple[str, str] | None, measured: Measured | None, more: str = "") -> str:
    """The directory's README, which is its model card, with the figures of `measure` and further sections."""
    codes = "".join(f"- {code}\n" for code in languages or ())
    front = "---\nlibrary_name: transformers\npipeline_tag: translation\n"
    figures = "".join(f"- {line}\n" for line in measured.describe().split("\n")) if measured else "It was not measured."
    return _README.format(
        front=front + (f"language:\n{codes}---\n\n" if languages else "---\n\n"),
        title=f"Translation from {languages[0]} to {languages[1]}" if languages else "A translation model",
        layers=(
            f"{config.enc_depth} encoder and {config.dec_depth} decoder layers of width {config.dim_emb}, feed-forward "
            f"layers of width {config.transformer_dim_ffn}"
        ),
        exact_class=EXACT_CLASS,
        exact_module=EXACT_MODULE,
        measured=figures.rstrip(),
        more=f"\n{more.strip()}\n" if more else "",
    )
