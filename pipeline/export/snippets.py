"""Code that translates with an export, for model cards."""

from collections.abc import Mapping
from typing import Any

from pipeline.export.card import Use, greeting

_CTRANSLATE2 = """import ctranslate2
import sentencepiece

source = sentencepiece.SentencePieceProcessor(model_file="ctranslate2/int8/{src_vocab}")
target = sentencepiece.SentencePieceProcessor(model_file="ctranslate2/int8/{trg_vocab}")
translator = ctranslate2.Translator("ctranslate2/int8")

sentences = ["{example}"]
pieces = source.encode(sentences, out_type=str)
results = translator.translate_batch(pieces, beam_size=1, disable_unk=True)
print(target.decode([result.hypotheses[0] for result in results]))"""

_HUGGINGFACE = """from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("huggingface")
model = AutoModelForSeq2SeqLM.from_pretrained("huggingface", trust_remote_code=True)

batch = tokenizer(["{example}"], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))"""

_BROWSER = """<!doctype html>
<meta charset="utf-8">
<p>…</p>
<script type="module">
import { BatchTranslator, TranslatorBacking } from "./node_modules/@browsermt/bergamot-translator/translator.js";

class Folder extends TranslatorBacking {
  async loadModelRegistery() {
    const { src, trg, files, "engine-options": config } = await (await fetch("metadata.json")).json();
    return [{ from: src, to: trg, files: { ...files, config } }];
  }
}

const translator = new BatchTranslator({}, new Folder({}));
const request = { from: "SRC", to: "TRG", text: "EXAMPLE", html: false };
document.querySelector("p").textContent = (await translator.translate(request)).target.text;
</script>"""


def ctranslate2_use(metadata: Mapping[str, Any], has_map: bool) -> Use:
    """`has_map`: whether there is a vocabulary map."""
    vocabularies = metadata["vocabularies"]
    text = (
        "With `pip install ctranslate2 sentencepiece`, in this folder; `ctranslate2/float32` is used in the same way, "
        "without the rounding to eight bits."
    )
    if has_map:
        text += (
            " With `use_vmap=True` in `translate_batch` the output layer computes only the pieces that `vmap.txt`, a "
            "lexical shortlist, has for a batch: faster with large vocabularies, and a few translations differ."
        )
    code = _CTRANSLATE2.format(
        src_vocab=vocabularies["src"]["file"],
        trg_vocab=vocabularies["trg"]["file"],
        example=greeting(metadata["src"]),
    )
    return Use("CTranslate2", text, "python", code)


def huggingface_use(metadata: Mapping[str, Any]) -> Use:
    text = (
        "With `pip install transformers sentencepiece torch`, in this folder; `huggingface/README.md` says what "
        "transformers' plain class, without `trust_remote_code`, loses."
    )
    return Use("Hugging Face Transformers", text, "python", _HUGGINGFACE.format(example=greeting(metadata["src"])))


def marian_use(metadata: Mapping[str, Any]) -> Use:
    code = f"marian-decoder --config marian/decoder.yml < input.{metadata['src']} > output.{metadata['trg']}"
    text = "With Marian 1.12, a sentence a line, in this folder; training can go on from these weights, too."
    return Use("Marian", text, "sh", code)


def browser_use(metadata: Mapping[str, Any]) -> Use:
    text = (
        "Firefox's engine, Bergamot, is on npm: after `npm install @browsermt/bergamot-translator` in this folder save "
        "this as `translate.html` there, run `python -m http.server`, and open `http://localhost:8000/translate.html`. "
        "The `.gz` files are for servers that send them with `Content-Encoding: gzip`."
    )
    code = (
        _BROWSER.replace("SRC", metadata["src"])
        .replace("TRG", metadata["trg"])
        .replace("EXAMPLE", greeting(metadata["src"]))
    )
    return Use("Bergamot", text, "html", code)
