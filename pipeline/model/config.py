"""The architecture of a model, under Marian's option names."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.common.errors import UserError

ACTIVATIONS = ("relu", "swish", "gelu")
DECODERS = ("self-attention", "rnn")
VERSION = "v1.12.0 limbeck"

# Not part of an architecture: a model file neither stores nor needs them.
DROPOUTS = ("transformer_dropout", "transformer_dropout_attention", "transformer_dropout_ffn")

# Everything else that Marian writes beside an architecture. The first value is the one written; the options that
# change what a transformer computes must have one of the values listed.
_FIXED: dict[str, tuple[Any, ...]] = {
    "type": ("transformer",),
    "transformer-no-projection": (False,),
    "transformer-ffn-depth": (2,),
    "transformer-train-position-embeddings": (False,),
    "transformer-pool": (False,),
    "right-left": (False,),
    "input-types": ([],),
    "ulr": (False,),
    "lemma-dim-emb": (0,),
}
_FIXED_IF_PRESENT: dict[str, tuple[Any, ...]] = {
    "transformer-decoder-dim-ffn": (0,),
    "transformer-decoder-ffn-depth": (0,),
    "transformer-train-positions": (False,),
    "transformer-rnn-projection": (False,),
    "factors-combine": ("sum",),
}
_UNUSED: dict[str, Any] = {
    "dim-rnn": 1024,
    "enc-cell": "gru",
    "enc-type": "bidirectional",
    "enc-cell-depth": 1,
    "dec-cell-base-depth": 2,
    "dec-cell-high-depth": 1,
    "skip": False,
    "layer-normalization": False,
    "special-vocab": [],
    "transformer-dim-aan": 2048,
    "transformer-aan-depth": 2,
    "transformer-aan-activation": "swish",
    "transformer-aan-nogate": False,
    "bert-train-type-embeddings": True,
    "bert-type-vocab-size": 2,
    "ulr-trainable-transformation": False,
    "ulr-dim-emb": 0,
}


@dataclass(frozen=True)
class ModelConfig:
    """An encoder-decoder transformer; `transformer_dim_ffn` is `transformer-dim-ffn` in Marian and in a config.

    `dim_vocabs` are the sizes of the source and target vocabularies. The operations around a block are strings of
    letters applied from left to right: d dropout, a add the block's input, n layer normalisation. A decoder with
    `transformer_decoder_autoreg` rnn and `dec_cell` ssru has recurrent units in place of self-attention (see `ssru`).
    `transformer_tied_layers` names, for each decoder layer, the layer whose parameters it uses, as (1, 1, 3, 3). Raises
    UserError, naming the option, for values that contradict each other and for architectures that are not supported.
    """

    dim_vocabs: tuple[int, int]
    dim_emb: int = 512
    enc_depth: int = 6
    dec_depth: int = 6
    transformer_heads: int = 8
    transformer_dim_ffn: int = 2048
    transformer_ffn_activation: str = "relu"
    transformer_preprocess: str = ""
    transformer_postprocess: str = "dan"
    transformer_postprocess_emb: str = "d"
    transformer_postprocess_top: str = ""
    transformer_decoder_autoreg: str = "self-attention"
    dec_cell: str = "gru"
    transformer_tied_layers: tuple[int, ...] = ()
    transformer_guided_alignment_layer: str = "last"
    tied_embeddings: bool = False
    tied_embeddings_src: bool = False
    tied_embeddings_all: bool = True
    output_omit_bias: bool = False
    transformer_dropout: float = 0.0
    transformer_dropout_attention: float = 0.0
    transformer_dropout_ffn: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim_vocabs", tuple(self.dim_vocabs))
        object.__setattr__(self, "transformer_tied_layers", tuple(self.transformer_tied_layers))
        object.__setattr__(self, "transformer_guided_alignment_layer", str(self.transformer_guided_alignment_layer))
        if len(self.dim_vocabs) != 2:
            raise UserError(f"dim-vocabs {list(self.dim_vocabs)}: two sizes are needed, of the source and the target")
        for name in ("dim_emb", "enc_depth", "dec_depth", "transformer_heads", "transformer_dim_ffn"):
            if getattr(self, name) < 1:
                raise UserError(f"{_key(name)} is {getattr(self, name)}: it must be at least 1")
        if self.dim_emb % 2 or self.dim_emb < 4 or self.dim_emb % self.transformer_heads:
            raise UserError(
                f"dim-emb {self.dim_emb} with transformer-heads {self.transformer_heads}: the width must be even, "
                "at least 4, and a multiple of the number of heads"
            )
        if self.shares_embeddings and self.dim_vocabs[0] != self.dim_vocabs[1]:
            raise UserError(
                f"dim-vocabs {list(self.dim_vocabs)}: tied-embeddings-all and tied-embeddings-src need one joint "
                "vocabulary; use tied-embeddings with two vocabularies"
            )
        if self.transformer_ffn_activation not in ACTIVATIONS:
            raise UserError(
                f"transformer-ffn-activation {self.transformer_ffn_activation!r}: one of {', '.join(ACTIVATIONS)}"
            )
        self._check_decoder()
        self._check_operations()
        for name in DROPOUTS:
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{_key(name)} is {getattr(self, name)}: it must be at least 0 and below 1")
        _ = self.alignment_layer

    def _check_decoder(self) -> None:
        if self.transformer_decoder_autoreg not in DECODERS:
            raise UserError(
                f"transformer-decoder-autoreg {self.transformer_decoder_autoreg!r} is not supported: "
                f"one of {', '.join(DECODERS)}"
            )
        if self.is_recurrent and self.dec_cell != "ssru":
            raise UserError(
                f"transformer-decoder-autoreg 'rnn' with dec-cell {self.dec_cell!r} is not supported: use dec-cell ssru"
            )
        tied = self.transformer_tied_layers
        if tied and (len(tied) != self.dec_depth or not all(1 <= layer <= self.dec_depth for layer in tied)):
            raise UserError(
                f"transformer-tied-layers {list(tied)}: one number from 1 to {self.dec_depth} is needed for each of "
                f"the {self.dec_depth} decoder layers"
            )

    def _check_operations(self) -> None:
        for name, allowed in (
            ("transformer_preprocess", "dn"),
            ("transformer_postprocess", "dan"),
            ("transformer_postprocess_emb", "dn"),
            ("transformer_postprocess_top", "dan"),
        ):
            unknown = set(getattr(self, name)) - set(allowed)
            if unknown:
                raise UserError(
                    f"{_key(name)} {getattr(self, name)!r}: operation {sorted(unknown)[0]!r} is not supported here, "
                    f"only {', '.join(allowed)}"
                )

    @property
    def is_recurrent(self) -> bool:
        """Whether the decoder has recurrent units (SSRU) in place of self-attention."""
        return self.transformer_decoder_autoreg == "rnn"

    @property
    def encoder_layers(self) -> tuple[str, ...]:
        """What the parameters of each encoder layer begin with."""
        return tuple(f"encoder_l{layer}" for layer in range(1, self.enc_depth + 1))

    @property
    def decoder_layers(self) -> tuple[str, ...]:
        """What the parameters of each decoder layer begin with; tied layers have the same."""
        layers = self.transformer_tied_layers or range(1, self.dec_depth + 1)
        return tuple(f"decoder_l{layer}" for layer in layers)

    @property
    def shares_embeddings(self) -> bool:
        """Whether source and target have one embedding matrix."""
        return self.tied_embeddings_all or self.tied_embeddings_src

    @property
    def ties_output(self) -> bool:
        """Whether the output layer uses the target's embedding matrix."""
        return self.tied_embeddings_all or self.tied_embeddings

    @property
    def alignment_layer(self) -> int:
        """The decoder layer, counted from 1, whose cross attention serves as word alignment."""
        layer = self.transformer_guided_alignment_layer
        if layer == "last":
            return self.dec_depth
        if not layer.isdecimal() or not 1 <= int(layer) <= self.dec_depth:
            raise UserError(
                f"transformer-guided-alignment-layer {layer!r}: 'last', or a layer from 1 to {self.dec_depth}"
            )
        return int(layer)

    @classmethod
    def from_yaml(cls, text: str) -> "ModelConfig":
        """Read the YAML text that a model carries (`special:model.yml`).

        Raises UserError when it is not such a text, or describes an architecture that is not supported.
        """
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"the model's own configuration is not YAML: {error}") from error
        if not isinstance(values, Mapping) or "dim-vocabs" not in values or "dim-emb" not in values:
            raise UserError("the model's own configuration lacks dim-vocabs or dim-emb: it is not a Marian model")
        for key, allowed in (_FIXED | _FIXED_IF_PRESENT).items():
            if key in values and values[key] not in allowed:
                raise UserError(
                    f"the model has {key}: {values[key]!r}, which is not supported (only {allowed[0]!r} is)"
                )
        # Marian's own defaults, where they differ from ours and the text may leave a key out.
        settings: dict[str, Any] = {"transformer_ffn_activation": "swish", "tied_embeddings_all": False}
        settings |= {name: values[_key(name)] for name in _stored_names() if _key(name) in values}
        try:
            config = cls(**settings)
        except (TypeError, ValueError) as error:
            raise UserError(f"the model's own configuration has a value of a wrong type: {error}") from error
        if config.is_recurrent and values.get("layer-normalization", False):
            raise UserError("the model has layer-normalization inside its recurrent units, which is not supported")
        return config

    def to_yaml(self) -> str:
        """The YAML text with every key that Marian writes, in Marian's order of names (sorted)."""
        values = {_key(name): getattr(self, name) for name in _stored_names()}
        values |= {"dim-vocabs": list(self.dim_vocabs), "transformer-tied-layers": list(self.transformer_tied_layers)}
        values |= _UNUSED | {key: allowed[0] for key, allowed in _FIXED.items()}
        return yaml.safe_dump({**values, "version": VERSION}, sort_keys=True, allow_unicode=True)


def _stored_names() -> list[str]:
    return [field.name for field in dataclasses.fields(ModelConfig) if field.name not in DROPOUTS]


def _key(name: str) -> str:
    return name.replace("_", "-")
