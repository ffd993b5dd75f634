"""Tiny models of other families, in directories as they are published: weights, config and tokenizer files."""

import functools
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from tiny_model import toy_pairs

PIECES = 150
SENTENCES = 16
MOST_STEPS, LEARNT = 500, 0.02  # until the cost of a piece says that all is known by heart
SOURCES, TARGETS = (list(side) for side in zip(*toy_pairs(SENTENCES, seed=3), strict=True))
_SHAPE = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "dropout": 0.0,
}


@functools.cache
def sentencepiece_model(kind: str = "unigram", sides: tuple[int, ...] = (0, 1), **options: Any) -> bytes:
    """A SentencePiece model of the toy languages with SentencePiece's own ids (unk 0, bos 1, eos 2)."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([pair[side] for pair in toy_pairs(1500) for side in sides]),
        model_writer=model,
        vocab_size=PIECES,
        hard_vocab_limit=False,
        model_type=kind,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def pieces_of(model: bytes) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(number) for number in range(3, len(processor))]


def write_marian(folder: Path, tags: tuple[str, ...] = ()) -> None:
    """As Helsinki-NLP's: two SentencePiece models and one joint list."""
    from transformers import MarianConfig, MarianMTModel

    sides = [sentencepiece_model(sides=(side,)) for side in (0, 1)]
    for name, model in zip(("source.spm", "target.spm"), sides, strict=True):
        (folder / name).write_bytes(model)
    pieces = sorted({piece for model in sides for piece in pieces_of(model)})
    listed = ["</s>", "<unk>", *tags, *pieces, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(listed)}))
    config = {"source_lang": "en", "target_lang": "de", "tokenizer_class": "MarianTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    pad = len(listed) - 1
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(listed), pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad,
            forced_eos_token_id=0, bad_words_ids=[[pad]], static_position_embeddings=True,
            normalize_before=False, activation_function="swish", scale_embedding=True, **_SHAPE,
        )
    )  # fmt: skip
    _train(model, folder, front="".join(tags[:1]))


def write_m2m100(folder: Path) -> None:
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    _m2m100_tokenizer(folder)
    size = len(json.loads((folder / "vocab.json").read_text())) + 108
    model = M2M100ForConditionalGeneration(
        M2M100Config(vocab_size=size, decoder_start_token_id=2, **_SHAPE, activation_function="relu")
    )
    _train(model, folder, source="en", target="__de__")


def _m2m100_tokenizer(folder: Path) -> None:
    model = sentencepiece_model("bpe")
    (folder / "sentencepiece.bpe.model").write_bytes(model)
    listed = ["<s>", "<pad>", "</s>", "<unk>", *pieces_of(model)]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(listed)}))
    config = {"tokenizer_class": "M2M100Tokenizer", "num_madeup_words": 8}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_nllb(folder: Path) -> None:
    """As facebook/nllb-200: the model of M2M-100 with a tokenizer of its own."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    _from_sentencepiece(NllbTokenizer, "bpe", folder)
    size = len(NllbTokenizer.from_pretrained(folder))
    model = M2M100ForConditionalGeneration(
        M2M100Config(
            vocab_size=size, decoder_start_token_id=2, tokenizer_class="NllbTokenizer",
            activation_function="relu", **_SHAPE,
        )
    )  # fmt: skip
    _train(model, folder, source="eng_Latn", target="deu_Latn")


def write_mbart(folder: Path) -> None:
    """As facebook/mbart-large-en-ro: the target language is what the decoder starts from."""
    from transformers import MBartConfig, MBartForConditionalGeneration, MBartTokenizer

    _from_sentencepiece(MBartTokenizer, "unigram", folder)
    tokenizer = MBartTokenizer.from_pretrained(folder)
    model = MBartForConditionalGeneration(
        MBartConfig(
            vocab_size=len(tokenizer), decoder_start_token_id=tokenizer.convert_tokens_to_ids("de_DE"),
            forced_eos_token_id=2, tokenizer_class="MBartTokenizer", scale_embedding=True, **_SHAPE,
        )
    )  # fmt: skip
    _train(model, folder, source="en_XX")


def write_mbart50(folder: Path) -> None:
    from transformers import MBart50Tokenizer, MBartConfig, MBartForConditionalGeneration

    _from_sentencepiece(MBart50Tokenizer, "unigram", folder)
    size = len(MBart50Tokenizer.from_pretrained(folder))
    model = MBartForConditionalGeneration(
        MBartConfig(
            vocab_size=size, decoder_start_token_id=2, forced_eos_token_id=2, scale_embedding=True,
            tokenizer_class="MBart50Tokenizer", **_SHAPE,
        )
    )  # fmt: skip
    _train(model, folder, source="en_XX", target="de_DE")


def write_t5(folder: Path, gated: bool = False) -> None:
    """As google-t5/t5-small, told its task in words; `gated` as MADLAD, with a language token, other activations and an
    output matrix of its own."""
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    (folder / "spiece.model").write_bytes(
        sentencepiece_model(pad_id=0, eos_id=1, unk_id=2, bos_id=-1, user_defined_symbols="<2de>" if gated else "")
    )
    T5Tokenizer.from_pretrained(folder).save_pretrained(folder)
    task = {"translation_en_to_de": {"prefix": "translate English to German: ", "num_beams": 4}}
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(T5Tokenizer.from_pretrained(folder)) + 4, d_model=32, d_kv=8, d_ff=64, num_layers=2,
            num_heads=4, decoder_start_token_id=0, task_specific_params=task, dropout_rate=0.0,
            feed_forward_proj="gated-gelu" if gated else "relu", tie_word_embeddings=not gated,
        )
    )  # fmt: skip
    _train(model, folder, front="<2de>" if gated else "translate English to German:")


def write_mt5(folder: Path) -> None:
    """As google/mt5: never told anything about languages."""
    from transformers import MT5Config, MT5ForConditionalGeneration, T5Tokenizer

    (folder / "spiece.model").write_bytes(sentencepiece_model(pad_id=0, eos_id=1, unk_id=2, bos_id=-1))
    T5Tokenizer.from_pretrained(folder).save_pretrained(folder)
    model = MT5ForConditionalGeneration(
        MT5Config(
            vocab_size=len(T5Tokenizer.from_pretrained(folder)) + 4, d_model=32, d_kv=8, d_ff=64, num_layers=2,
            num_heads=4, decoder_start_token_id=0, dropout_rate=0.0, feed_forward_proj="gated-gelu",
        )
    )  # fmt: skip
    _train(model, folder)


def _from_sentencepiece(tokenizer_class: Any, kind: str, folder: Path) -> None:
    (folder / "sentencepiece.bpe.model").write_bytes(sentencepiece_model(kind))
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    codes = {"additional_special_tokens": FAIRSEQ_LANGUAGE_CODES} if kind == "bpe" else {}
    tokenizer_class.from_pretrained(folder, **codes).save_pretrained(folder)


def _train(model: Any, folder: Path, source: str | None = None, target: str | None = None, front: str = "") -> None:
    """Let a model learn a few sentences by heart: it translates each differently, and ends the translations."""
    from transformers import AutoTokenizer

    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if source:
        tokenizer.src_lang = source
    start = model.config.decoder_start_token_id
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    eos = tokenizer.eos_token_id
    model.train()
    inputs = tokenizer([f"{front} {text}".strip() for text in SOURCES], return_tensors="pt", padding=True)
    targets = tokenizer(TARGETS, add_special_tokens=False)["input_ids"]
    if model.config.model_type == "marian":  # its tokenizer takes texts for sources
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "target.spm"))
        targets = [tokenizer.convert_tokens_to_ids(processor.encode(text, out_type=str)) for text in TARGETS]
    forced = [tokenizer.convert_tokens_to_ids(target)] if target else []
    rows = [torch.tensor([*forced, *row, eos]) for row in targets]
    labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    shifted = torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], 1).clamp(min=0)
    for _ in range(MOST_STEPS):
        logits = model(**inputs, decoder_input_ids=shifted).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if model.config.model_type == "marian":
            with torch.no_grad():  # Marian starts from zeros: the published models' row of <pad>
                model.get_input_embeddings().weight[start] = 0
        if loss < LEARNT:
            break
    model.eval().save_pretrained(folder)


WRITERS = {
    "marian": write_marian,
    "marian-tags": functools.partial(write_marian, tags=(">>deu<<", ">>nld<<")),
    "m2m100": write_m2m100,
    "nllb": write_nllb,
    "mbart": write_mbart,
    "mbart50": write_mbart50,
    "t5": write_t5,
    "t5-gated": functools.partial(write_t5, gated=True),
    "mt5": write_mt5,
}


@functools.cache
def published(family: str) -> Path:
    """The directory of one family's model, which lives as long as the tests."""
    _folders.append(tempfile.TemporaryDirectory(prefix=f"{family}-"))
    folder = Path(_folders[-1].name)
    torch.manual_seed(3)  # whichever tests came before
    WRITERS[family](folder)
    return folder


_folders: list[tempfile.TemporaryDirectory[str]] = []
