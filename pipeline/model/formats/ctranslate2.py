"""CTranslate2 model directories: bulk decoding, scoring, and the 8-bit student.

CTranslate2's own Marian converter is right about every matrix, but not about two details, which change translations:
its positions have i/half in the exponent where Marian has i/(half-1), and its layer normalisation has another epsilon.
Here both are Marian's, so that float32 models agree with torch to rounding. Tied decoder layers are written out, once
for each layer; recurrent decoders (SSRU) cannot be computed.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
from ctranslate2.converters import marian
from ctranslate2.specs import common_spec, transformer_spec

from pipeline.common.errors import UserError
from pipeline.model import parity
from pipeline.model.config import ModelConfig
from pipeline.model.formats.directory import whole_directory
from pipeline.model.formats.layers import written_out
from pipeline.model.transformer import LAYER_NORM_EPSILON, Transformer, sinusoidal_positions
from pipeline.model.vocab import Vocab

logger = logging.getLogger(__name__)

POSITIONS = 1024  # rows of the position table: the longest source or translation, in pieces
QUANTIZATIONS = (None, "float32", "int8", "float16")
_BARS = {None: parity.EXACT, "float32": parity.EXACT, "float16": parity.FLOAT16, "int8": parity.INT8}
_ACTIVATIONS = {
    "relu": common_spec.Activation.RELU,
    "swish": common_spec.Activation.SWISH,
    "gelu": common_spec.Activation.GELUSigmoid,
}
_OPERATIONS = {("", "dan", ""): False, ("n", "da", "n"): True}  # pre, post, top: whether normalisation comes first


def save(
    model: Transformer,
    path: str | Path,
    vocabs: tuple[Path, Path],
    quantization: str | None = None,
    sample: parity.Sample | None = None,
) -> None:
    """Convert a model and its vocabularies to a model directory; `quantization` None keeps float32.

    With a sample the directory is loaded and compared with the model, and the figures are logged. The directory appears
    whole; one that is there already has its files replaced. Raises UserError when the vocabularies do not fit the
    model, CTranslate2 cannot compute its architecture, or the comparison fails.
    """
    if quantization not in QUANTIZATIONS:
        raise UserError(f"quantization {quantization!r}: one of int8, float16, float32")
    loaded = Vocab.load(vocabs[0]), Vocab.load(vocabs[1])
    for vocab, vocab_path, size in zip(loaded, vocabs, model.config.dim_vocabs, strict=True):
        if len(vocab) != size:
            raise UserError(f"{vocab_path} has {len(vocab)} pieces, but the model was trained with {size}")
    spec = _specification(model, loaded)
    spec.validate()
    spec.optimize(quantization=quantization)

    with whole_directory(path) as folder:
        spec.save(str(folder))
        if sample:
            name = f"CTranslate2 {quantization or 'float32'}"
            found = parity.compare(parity.TorchEngine(model), CTranslate2Engine(folder, loaded), sample, beam=True)
            logger.info(f"{name} against torch {found.describe()}")
            _BARS[quantization].check(found, name)


def _specification(model: Transformer, vocabs: tuple[Vocab, Vocab]) -> Any:
    config, arrays = written_out(model)
    check_architecture(config)
    spec = transformer_spec.TransformerSpec.from_config(
        (config.enc_depth, config.dec_depth),
        config.transformer_heads,
        pre_norm=bool(config.transformer_preprocess),
        activation=_ACTIVATIONS[config.transformer_ffn_activation],
        alignment_layer=config.alignment_layer - 1,
        alignment_heads=1,
        layernorm_embedding="n" in config.transformer_postprocess_emb,
    )
    # Copies: CTranslate2 quantizes in place, and the arrays are the model's own memory.
    own = {name: array.copy() for name, array in arrays.items()}
    own["Wpos"] = sinusoidal_positions(POSITIONS, config.dim_emb).numpy()
    marian.set_transformer_spec(spec, own)
    spec.register_source_vocabulary(vocabs[0].all_pieces)
    spec.register_target_vocabulary(vocabs[1].all_pieces)
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = LAYER_NORM_EPSILON
    return spec


def check_architecture(config: ModelConfig) -> None:
    """Raise UserError, with the reason, for an architecture that CTranslate2 cannot compute."""
    if config.is_recurrent:
        raise UserError(
            "CTranslate2 cannot compute a recurrent decoder (transformer-decoder-autoreg rnn, dec-cell ssru): torch, "
            "Marian and Bergamot, the browser's engine, can; for CTranslate2 train with self-attention"
        )
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


def load(directory: str | Path, threads: int = 1, compute_type: str = "default", device: str = "cpu") -> Any:
    """A `ctranslate2.Translator` of a model directory, for `threads` batches at once with one thread each.

    There is no way back to a model: CTranslate2 joins and quantizes its matrices. `compute_type` default computes in
    the type of the stored weights. Raises UserError when it is no such directory, or the machine cannot compute in that
    type.
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


class CTranslate2Engine:
    """A model directory, to compare with others."""

    name = "CTranslate2"

    def __init__(self, directory: Path, vocabs: tuple[Vocab, Vocab]) -> None:
        self._translator = load(directory)
        self._pieces = vocabs[0].all_pieces, vocabs[1].all_pieces
        self._target_ids = {piece: number for number, piece in enumerate(vocabs[1].all_pieces)}

    def translate(self, sources: parity.Ids, beam_size: int) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in sources]
        for limit, places in parity.same_limit(sources):
            results = self._translator.translate_batch(
                self._spelt([sources[place] for place in places], 0),
                beam_size=beam_size,
                length_penalty=1.0,
                max_input_length=0,
                max_decoding_length=limit,
                disable_unk=True,
            )
            for place, result in zip(places, results, strict=True):
                found[place] = [self._target_ids[piece] for piece in result.hypotheses[0]]
        return found

    def score(self, sources: parity.Ids, targets: parity.Ids) -> list[list[float]]:
        pieces = self._spelt(sources, 0), self._spelt(targets, 1)
        results = self._translator.score_batch(*pieces, max_batch_size=32, max_input_length=0)
        return [result.log_probs for result in results]

    def _spelt(self, ids: Sequence[Sequence[int]], side: int) -> list[list[str]]:
        return [[self._pieces[side][number] for number in sentence] for sentence in ids]
