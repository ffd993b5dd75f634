"""CTranslate2 model directories: bulk decoding, scoring, and the 8-bit student.

CTranslate2's own Marian converter is right about every matrix, but not about two details, which change translations:
its positions have i/half in the exponent where Marian has i/(half-1), and its layer normalisation has another epsilon.
Here both are Marian's, so that float32 models agree with torch to rounding.
"""

from pathlib import Path
from typing import Any

import ctranslate2
from ctranslate2.converters import marian
from ctranslate2.specs import common_spec, transformer_spec

from pipeline.common.errors import UserError
from pipeline.model.config import ModelConfig
from pipeline.model.formats import npz
from pipeline.model.formats.directory import whole_directory
from pipeline.model.transformer import LAYER_NORM_EPSILON, sinusoidal_positions
from pipeline.model.vocab import Vocab

POSITIONS = 1024  # rows of the position table: the longest source or translation, in pieces
QUANTIZATIONS = (None, "float32", "int8", "float16")
_ACTIVATIONS = {
    "relu": common_spec.Activation.RELU,
    "swish": common_spec.Activation.SWISH,
    "gelu": common_spec.Activation.GELUSigmoid,
}
_OPERATIONS = {("", "dan", ""): False, ("n", "da", "n"): True}  # pre, post, top: whether normalisation comes first


def save(
    model: str | Path,
    src_vocab: str | Path,
    trg_vocab: str | Path,
    output_dir: str | Path,
    quantization: str | None = None,
) -> None:
    """Convert a `model.npz` and its vocabularies to a model directory; `quantization` None keeps float32.

    The directory appears whole; one that is there already has its files replaced. Raises UserError when the
    vocabularies do not fit the model, or CTranslate2 cannot compute its architecture.
    """
    if quantization not in QUANTIZATIONS:
        raise UserError(f"quantization {quantization!r}: one of int8, float16, float32")
    config = npz.load_config(model)
    vocabs = Vocab.load(src_vocab), Vocab.load(trg_vocab)
    for vocab, path, size in zip(vocabs, (src_vocab, trg_vocab), config.dim_vocabs, strict=True):
        if len(vocab) != size:
            raise UserError(f"{path} has {len(vocab)} pieces, but the model {model} was trained with {size}")
    spec = _specification(config, npz.load_arrays(model), vocabs)
    spec.validate()
    spec.optimize(quantization=quantization)

    with whole_directory(output_dir) as folder:
        spec.save(str(folder))


def _specification(config: ModelConfig, arrays: dict[str, npz.Array], vocabs: tuple[Vocab, Vocab]) -> Any:
    operations = (
        config.transformer_preprocess,
        config.transformer_postprocess,
        config.transformer_postprocess_top,
    )
    if operations not in _OPERATIONS or config.transformer_postprocess_emb not in ("", "d", "n", "nd"):
        raise UserError(
            f"CTranslate2 cannot compute a model with transformer-preprocess {operations[0]!r}, -postprocess "
            f"{operations[1]!r}, -postprocess-top {operations[2]!r} and -postprocess-emb "
            f"{config.transformer_postprocess_emb!r}: it knows '', 'dan', '' and 'n', 'da', 'n' with d, n or nd"
        )
    spec = transformer_spec.TransformerSpec.from_config(
        (config.enc_depth, config.dec_depth),
        config.transformer_heads,
        pre_norm=_OPERATIONS[operations],
        activation=_ACTIVATIONS[config.transformer_ffn_activation],
        alignment_layer=config.alignment_layer - 1,
        alignment_heads=1,
        layernorm_embedding="n" in config.transformer_postprocess_emb,
    )
    positions = sinusoidal_positions(POSITIONS, config.dim_emb).numpy()
    marian.set_transformer_spec(spec, {**arrays, "Wpos": positions})
    spec.register_source_vocabulary(vocabs[0].all_pieces)
    spec.register_target_vocabulary(vocabs[1].all_pieces)
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = LAYER_NORM_EPSILON
    return spec


def load(directory: str | Path, threads: int = 1, compute_type: str = "default", device: str = "cpu") -> Any:
    """A `ctranslate2.Translator` of a model directory, for `threads` batches at once with one thread each.

    `compute_type` default computes in the type of the stored weights. Raises UserError when it is no such directory,
    or the machine cannot compute in that type.
    """
    directory = Path(directory)
    if not (directory / "model.bin").is_file():
        raise UserError(f"{directory} is not a CTranslate2 model: it has no model.bin")
    try:
        return ctranslate2.Translator(
            str(directory), device=device, compute_type=compute_type, inter_threads=threads, intra_threads=1
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"CTranslate2 cannot load {directory} as {compute_type} on {device}: {error}") from error
