"""Hugging Face's MarianMTModel: a directory that `from_pretrained` of transformers reads, both ways.

The maths is Marian's but for two details that the class has in its code, not in the weights (see
modeling_limbeck_marian.py). So a directory written here also carries a class that is exact, for those who load it with
`trust_remote_code=True`; the plain class loads the same weights, and the README says what that costs.

Marian's decoder starts with a zero vector, transformers' with the embedding of the padding piece: a row of zeros after
the last one, which no translation contains. Only what compares with transformers needs the extra [huggingface].
"""

import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from pipeline.common.errors import UserError
from pipeline.common.files import read_json, write_json
from pipeline.model import parity
from pipeline.model.config import ModelConfig
from pipeline.model.decoding import LONGEST
from pipeline.model.formats import huggingface_check, npz, pieces
from pipeline.model.formats.directory import whole_directory
from pipeline.model.formats.layers import written_out
from pipeline.model.formats.vocabularies import SPM_NAMES, ListedVocabs, Side, by_row
from pipeline.model.transformer import MASKED, Transformer
from pipeline.model.vocab import EOS_ID, UNK_ID, Vocab

logger = logging.getLogger(__name__)

POSITIONS = 1024
WEIGHTS = "model.safetensors"
PAD = "<pad>"
_VOCAB_FILES = ("vocab.json", "target_vocab.json")
_ACTIVATIONS = {"relu": "relu", "swish": "swish", "gelu": "quick_gelu"}
# Marian's gelu is x * sigmoid(1.702 x), which transformers calls quick_gelu.
_ACTIVATIONS_READ = {"relu": "relu", "swish": "swish", "silu": "swish", "quick_gelu": "gelu"}

Array = npz.Array


def save(
    model: Transformer,
    path: str | Path,
    vocabs: tuple[Path, Path],
    languages: tuple[str, str] | None = None,
    sample: parity.Sample | None = None,
    more: str = "",
) -> None:
    """Write a directory for `MarianMTModel` and `MarianTokenizer`; `languages` are of the source and the target.

    With a sample both classes are compared with the model, and the figures are logged and go into the README. Where
    transformers cannot be imported they are not compared, which is logged and stands in the README. `more` are further
    sections of the README, as Markdown. The directory appears whole. Raises UserError when transformers cannot express
    the architecture, the vocabularies do not fit, or the exact class is not exact.
    """
    config, arrays = written_out(model)
    check_architecture(config)
    loaded = Vocab.load(vocabs[0]), Vocab.load(vocabs[1])
    for vocab, vocab_path, size in zip(loaded, vocabs, config.dim_vocabs, strict=True):
        if len(vocab) != size:
            raise UserError(f"{vocab_path} has {len(vocab)} pieces, but the model was trained with {size}")
    same_pieces = loaded[0].all_pieces == loaded[1].all_pieces
    with whole_directory(path) as folder:
        _write_weights(config, arrays, folder / WEIGHTS)
        write_json(folder / "config.json", _config_values(config))
        write_json(folder / "generation_config.json", _generation_values(config))
        _write_tokenizer(folder, vocabs, loaded, same_pieces and _shares_rows(config), languages)
        source = Path(__file__).with_name(f"{huggingface_check.EXACT_MODULE}.py")
        shutil.copyfile(source, folder / source.name)
        found = None
        if sample and not huggingface_check.has_transformers():
            logger.warning(
                "the directory for transformers was not compared with the model: transformers cannot be imported "
                "(pip install 'limbeck[huggingface]')"
            )
        elif sample:
            found = huggingface_check.measure(folder, model, loaded, sample)
            logger.info(found.describe())
        (folder / "README.md").write_text(huggingface_check.readme(config, languages, found, more), encoding="utf-8")


def load(path: str | Path) -> Transformer:
    """Read a directory into a model, in evaluation mode; `write_vocabs` writes the vocabularies that fit it.

    Positions are not among the weights: the model gets Marian's, with which public conversions of Marian's models were
    trained. One trained in transformers itself has other positions, and loses by it. Raises UserError for what is not
    such a directory, and for architectures that Marian does not have.
    """
    path = Path(path)
    values = _read_config(path)
    config = _config(values, path)
    rows = [_rows(path, values, place)[0] for place in range(2)]
    arrays = _arrays(config, _read_state(path), values, rows, path)
    if not np.any(arrays[npz.OUTPUT_BIAS]):
        del arrays[npz.OUTPUT_BIAS]
        config = dataclasses.replace(config, output_omit_bias=True)
    return _vocabs(path, values).fit(npz.assemble(config, arrays, path))


def write_vocabs(path: str | Path, folder: str | Path) -> tuple[Path, Path]:
    """Write source.spm and target.spm, whose ids are the model's rows, into a folder; returns their paths."""
    return _vocabs(Path(path), _read_config(Path(path))).write(folder)


# Writing


def check_architecture(config: ModelConfig) -> None:
    """Raise UserError, with the reason, for an architecture that transformers' MarianMTModel cannot compute."""
    if config.is_recurrent:
        raise UserError(
            "transformers has no recurrent decoder (transformer-decoder-autoreg rnn, dec-cell ssru): torch, Marian and "
            "Bergamot, the browser's engine, can compute it; for transformers train with self-attention"
        )
    operations = (
        config.transformer_preprocess,
        config.transformer_postprocess,
        config.transformer_postprocess_top,
        config.transformer_postprocess_emb.replace("d", ""),
    )
    if operations != ("", "dan", "", ""):
        raise UserError(
            f"transformers' MarianMTModel normalises after each block and nowhere else: transformer-preprocess "
            f"{operations[0]!r}, -postprocess {operations[1]!r}, -postprocess-top {operations[2]!r} and "
            f"-postprocess-emb {config.transformer_postprocess_emb!r} must be '', 'dan', '' and 'd'"
        )


def _shares_rows(config: ModelConfig) -> bool:
    """Whether one matrix is the embedding of both sides and the output layer, which is the only sharing it has."""
    return config.shares_embeddings and config.ties_output


def _names(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """Parameters of layers: the name here and there. Matrices are [in, out] here and [out, in] there."""
    attention = {"encoder": {"self": "self_attn"}, "decoder": {"self": "self_attn", "context": "encoder_attn"}}
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        for number, ours in enumerate(layers):
            theirs = f"model.{side}.layers.{number}"
            for block, name in attention[side].items():
                for part, projection in zip("qkvo", ("q_proj", "k_proj", "v_proj", "out_proj"), strict=True):
                    yield f"{ours}_{block}_W{part}", f"{theirs}.{name}.{projection}.weight"
                    yield f"{ours}_{block}_b{part}", f"{theirs}.{name}.{projection}.bias"
                yield f"{ours}_{block}_Wo_ln_scale", f"{theirs}.{name}_layer_norm.weight"
                yield f"{ours}_{block}_Wo_ln_bias", f"{theirs}.{name}_layer_norm.bias"
            for part in "12":
                yield f"{ours}_ffn_W{part}", f"{theirs}.fc{part}.weight"
                yield f"{ours}_ffn_b{part}", f"{theirs}.fc{part}.bias"
            yield f"{ours}_ffn_ffn_ln_scale", f"{theirs}.final_layer_norm.weight"
            yield f"{ours}_ffn_ffn_ln_bias", f"{theirs}.final_layer_norm.bias"


def _write_weights(config: ModelConfig, arrays: dict[str, Array], path: Path) -> None:
    tensors = {theirs: _turned(arrays[ours]) for ours, theirs in _names(config)}
    rows = max(config.dim_vocabs) + 1  # the padding piece is the last row on both sides

    def filled(matrix: Array) -> Array:
        return np.pad(matrix, ((0, rows - len(matrix)), (0, 0)))

    source = arrays["Wemb" if config.shares_embeddings else "encoder_Wemb"]
    target = arrays["Wemb" if config.shares_embeddings else "decoder_Wemb"]
    if _shares_rows(config):
        tensors["model.shared.weight"] = filled(source)
    else:
        tensors["model.encoder.embed_tokens.weight"] = filled(source)
        tensors["model.decoder.embed_tokens.weight"] = filled(target)
        if not config.ties_output:
            tensors["lm_head.weight"] = filled(arrays[npz.OUTPUT].T)
    bias = np.full((1, rows), MASKED, np.float32)
    bias[0, : config.dim_vocabs[1]] = 0 if config.output_omit_bias else arrays[npz.OUTPUT_BIAS][0]
    tensors["final_logits_bias"] = bias
    contiguous = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}
    # As bytes: the library's own files are readable by nobody else.
    path.write_bytes(safetensors.numpy.save(contiguous, metadata={"format": "pt"}))


def _turned(array: Array) -> Array:
    return array.T if len(array) > 1 else array.reshape(-1)


def _config_values(config: ModelConfig) -> dict[str, Any]:
    pad = max(config.dim_vocabs)
    sides = {
        f"{side}_{name}": value
        for side, depth in (("encoder", config.enc_depth), ("decoder", config.dec_depth))
        for name, value in (
            ("layers", depth),
            ("attention_heads", config.transformer_heads),
            ("ffn_dim", config.transformer_dim_ffn),
            ("layerdrop", 0.0),
        )
    }
    return {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "auto_map": {
            "AutoModelForSeq2SeqLM": f"{huggingface_check.EXACT_MODULE}.{huggingface_check.EXACT_CLASS}",
        },
        "is_encoder_decoder": True,
        "d_model": config.dim_emb,
        **sides,
        "num_hidden_layers": config.enc_depth,
        "activation_function": _ACTIVATIONS[config.transformer_ffn_activation],
        "vocab_size": pad + 1,
        "decoder_vocab_size": pad + 1,
        "share_encoder_decoder_embeddings": _shares_rows(config),
        "tie_word_embeddings": config.ties_output,
        "scale_embedding": True,
        "static_position_embeddings": True,
        "normalize_before": False,
        "normalize_embedding": False,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": pad,
        "decoder_start_token_id": pad,
        "eos_token_id": EOS_ID,
        "bos_token_id": None,
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "use_cache": True,
        "dtype": "float32",
        "transformer_guided_alignment_layer": config.transformer_guided_alignment_layer,
    }


def _generation_values(config: ModelConfig) -> dict[str, Any]:
    pad = max(config.dim_vocabs)
    return {
        "pad_token_id": pad,
        "decoder_start_token_id": pad,
        "eos_token_id": EOS_ID,
        "forced_eos_token_id": None,
        # As Marian decodes: no padding, no <unk>, and something.
        "suppress_tokens": [UNK_ID, *range(config.dim_vocabs[1], pad + 1)],
        "min_new_tokens": 1,
        "max_length": 512,
        "num_beams": 1,
        "length_penalty": 1.0,
    }


def _write_tokenizer(
    folder: Path,
    paths: tuple[Path, Path],
    vocabs: tuple[Vocab, Vocab],
    joint: bool,
    languages: tuple[str, str] | None,
) -> None:
    for source, name in zip(paths, SPM_NAMES, strict=True):
        shutil.copyfile(source, folder / name)
    pad = max(len(vocabs[0]), len(vocabs[1]))
    for vocab, name in list(zip(vocabs, _VOCAB_FILES, strict=True))[: 1 if joint else 2]:
        rows = {pieces.tag(piece) or piece: row for row, piece in enumerate(vocab.all_pieces)}
        text = json.dumps({**rows, PAD: pad}, indent=0, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    values = {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": languages[0] if languages else None,
        "target_lang": languages[1] if languages else None,
        "eos_token": pieces.EOS,
        "unk_token": pieces.UNK,
        "pad_token": PAD,
        "separate_vocabs": not joint,
        "model_max_length": LONGEST,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", values)


# Reading


def _read_config(path: Path) -> dict[str, Any]:
    values = read_json(path / "config.json")
    if not isinstance(values, dict) or values.get("model_type") != "marian":
        raise UserError(f"{path} is not a MarianMTModel: its config.json has no model_type marian")
    return values


def _config(values: dict[str, Any], path: Path) -> ModelConfig:
    """The architecture of config.json."""
    for key, wanted in (("scale_embedding", True), ("normalize_before", False), ("normalize_embedding", False)):
        # Old files leave keys out that had these defaults.
        if values.get(key, wanted) != wanted:
            raise UserError(f"{path} has {key} {values[key]!r}: Marian's transformer needs {wanted!r}")
    for name in ("attention_heads", "ffn_dim"):
        if values.get(f"encoder_{name}") != values.get(f"decoder_{name}"):
            raise UserError(
                f"{path} has encoder_{name} {values.get(f'encoder_{name}')} and decoder_{name} "
                f"{values.get(f'decoder_{name}')}: models here have one number for both"
            )
    activation = _ACTIVATIONS_READ.get(values.get("activation_function", ""))
    if activation is None:
        raise UserError(
            f"{path} has activation_function {values.get('activation_function')!r}, which Marian does not have: "
            f"one of {', '.join(_ACTIVATIONS_READ)}"
        )
    shared = values.get("share_encoder_decoder_embeddings", True)
    tied = values.get("tie_word_embeddings", True)
    if shared and not tied:
        raise UserError(f"{path} shares its embeddings but not with the output layer, which is not supported")
    try:
        return ModelConfig(
            dim_vocabs=(len(_rows(path, values, 0)[1]), len(_rows(path, values, 1)[1])),
            dim_emb=values["d_model"],
            enc_depth=values["encoder_layers"],
            dec_depth=values["decoder_layers"],
            transformer_heads=values["encoder_attention_heads"],
            transformer_dim_ffn=values["encoder_ffn_dim"],
            transformer_ffn_activation=activation,
            transformer_guided_alignment_layer=values.get("transformer_guided_alignment_layer", "last"),
            tied_embeddings=tied and not shared,
            tied_embeddings_all=shared,
        )
    except KeyError as error:
        raise UserError(f"{path}/config.json lacks {error}") from error


def _rows(path: Path, values: dict[str, Any], place: int) -> tuple[list[int], list[str]]:
    """The rows of a side that have a piece, in order, without that of the padding piece; and their pieces."""
    name = path / (_VOCAB_FILES[1] if place and (path / _VOCAB_FILES[1]).is_file() else _VOCAB_FILES[0])
    listed = read_json(name)
    if not isinstance(listed, dict) or not all(isinstance(row, int) for row in listed.values()):
        raise UserError(f"{name} is not a vocabulary: it must map pieces to row numbers")
    ordered = sorted((row, piece) for piece, row in listed.items() if row != values.get("pad_token_id"))
    kept = by_row({piece: place for place, (_, piece) in enumerate(ordered)}, str(name))
    return [row for row, _ in ordered], kept


def _vocabs(path: Path, values: dict[str, Any]) -> ListedVocabs:
    sides = []
    for place, name in enumerate(SPM_NAMES):
        try:
            spm = (path / name).read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"{path} has no {name}: the tokenizer's files are needed, too") from error
        sides.append(Side(_rows(path, values, place)[1], spm, f"{path}'s vocabulary"))
    return ListedVocabs(sides[0], sides[1])


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a directory, of one file or of several with an index, in either of the two file formats."""
    for name in (WEIGHTS, "pytorch_model.bin"):
        index = path / f"{name}.index.json"
        files = [name] if (path / name).is_file() else []
        if not files and index.is_file():
            files = sorted({str(file) for file in read_json(index).get("weight_map", {}).values()})
        if files:
            return {key: value for file in files for key, value in _read_tensors(path / Path(file).name).items()}
    raise UserError(f"{path} has neither {WEIGHTS} nor pytorch_model.bin")


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, torch.Tensor] = safetensors.torch.load_file(str(path))
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each library has errors of its own for damaged files
        raise UserError(f"{path} is not a sound file of weights: {error}") from error
    return tensors


def _arrays(
    config: ModelConfig, state: dict[str, torch.Tensor], values: dict[str, Any], rows: list[list[int]], path: Path
) -> dict[str, Array]:
    """Parameters under Marian's names, of the rows that have a piece."""

    def read(*names: str) -> Array:
        for name in names:
            if name in state:
                return state[name].to(torch.float32).numpy()
        raise UserError(f"{path} lacks the tensor {names[0]}")

    arrays = {}
    for ours, theirs in _names(config):
        tensor = read(theirs)
        arrays[ours] = np.ascontiguousarray(tensor.T) if tensor.ndim == 2 else tensor.reshape(1, -1)
    shared = "model.shared.weight"
    source, target = (
        read(*([shared] if config.tied_embeddings_all else []), f"model.{side}.embed_tokens.weight", shared)
        for side in ("encoder", "decoder")
    )
    start = values.get("decoder_start_token_id")
    if not isinstance(start, int) or not 0 <= start < len(target) or start in rows[1] or np.any(target[start]):
        raise UserError(
            f"{path} starts translations with piece {start}, whose embedding is not zero: Marian starts with zeros"
        )
    try:
        if config.tied_embeddings_all:
            arrays["Wemb"] = source[rows[0]]
        else:
            arrays["encoder_Wemb"], arrays["decoder_Wemb"] = source[rows[0]], target[rows[1]]
            if not config.tied_embeddings:
                arrays[npz.OUTPUT] = np.ascontiguousarray(read("lm_head.weight")[rows[1]].T)
        bias = read("final_logits_bias").reshape(1, -1) if "final_logits_bias" in state else np.zeros((1, len(target)))
        arrays[npz.OUTPUT_BIAS] = bias[:, rows[1]].astype(np.float32)
    except IndexError as error:
        raise UserError(f"{path} has a vocabulary with more pieces than its embeddings have rows") from error
    return arrays
