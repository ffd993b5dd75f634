"""The encoder-decoder transformer, computed exactly as Marian computes it.

Vaswani et al. (2017) with Marian's particulars: positions are half sines, half cosines, with half-1 in the exponent;
the decoder's first input is an all-zero vector; layer normalisation after each block (`dan`) by default; parameters
have Marian's names, and matrices are [in, out].

Shapes: B sentences, S source and T target positions, d width, h heads, V target pieces.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.model.config import ModelConfig

LAYER_NORM_EPSILON = 1e-6
MASKED = -99999999.0  # Marian's score of a position that must not be looked at
_FIRST_POSITIONS = 1024

KeysValues = tuple[Tensor, Tensor]


def sinusoidal_positions(length: int, dim: int) -> Tensor:
    """Marian's position table, float32 [length, dim]; computed in float64, as the engines' tables are."""
    half = dim // 2
    frequencies = torch.exp(-torch.arange(half, dtype=torch.float64) * (math.log(10000) / (half - 1)))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


@dataclass
class DecoderState:
    """What an incremental decoder keeps: for B sentences of K hypotheses each.

    `source` holds, per layer, the cross attention's keys and values [B, h, S, d/h], once per sentence; `past` those of
    the self attention so far [B*K, h, t, d/h]; `src_mask` is the additive mask [B, 1, 1, S].
    """

    source: list[KeysValues]
    src_mask: Tensor
    past: list[KeysValues | None] = field(default_factory=list)
    position: int = 0

    def select(self, sentences: Tensor, hypotheses: Tensor) -> None:
        """Keep these sentences (indices [B'], into B) and hypotheses (indices [B'*K'], into B*K), in this order."""
        if len(sentences) != len(self.src_mask):
            self.source = [(keys[sentences], values[sentences]) for keys, values in self.source]
            self.src_mask = self.src_mask[sentences]
        self.past = [None if layer is None else (layer[0][hypotheses], layer[1][hypotheses]) for layer in self.past]


class Transformer(nn.Module):
    """The model. Parameters are zero until `init_parameters` or a loader fills them."""

    positions: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        for name, shape in parameter_shapes(config).items():
            fill = 1.0 if "_ln_scale" in name else 0.0
            self.register_parameter(name, nn.Parameter(torch.full(shape, fill)))
        table = sinusoidal_positions(_FIRST_POSITIONS, config.dim_emb)
        self.register_buffer("positions", table, persistent=False)

    def init_parameters(self, seed: int) -> None:
        """Draw the parameters as Marian does (Glorot and Bengio, 2010, uniform); one seed, one model, on any device."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in sorted(self.named_parameters()):
                rows, columns = parameter.shape
                if "_ln_scale" in name:
                    parameter.fill_(1.0)
                elif rows == 1:
                    parameter.zero_()
                else:
                    # Embeddings depend on their width alone: scaled by its root they have unit variance.
                    bound = math.sqrt(3 / columns) if name.endswith("Wemb") else math.sqrt(6 / (rows + columns))
                    parameter.copy_(torch.rand(rows, columns, generator=generator) * (2 * bound) - bound)

    def forward(
        self, src_ids: Tensor, src_mask: Tensor, trg_ids: Tensor, alignment: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [B, T, V] of targets, and with `alignment` the guided-alignment attention [B, T, S]."""
        memory = self.encode(src_ids, src_mask)
        states, attention = self.decode(trg_ids, memory, src_mask, alignment)
        return self.logits(states), attention

    def encode(self, src_ids: Tensor, src_mask: Tensor, hidden: list[Tensor] | None = None) -> Tensor:
        """Memory [B, S, d] of source ids [B, S], each sentence with its end, and a mask [B, S] (True: real).

        The output [B, S, d] of each layer is appended to `hidden`, in order, when it is given.
        """
        mask = _additive(src_mask)[:, None, None, :]
        embedded = self._embed("encoder", src_ids)
        x = self._pre("encoder_emb", embedded + self._positions(0, src_ids.shape[1]), self._emb_ops)
        stack_input = x
        for layer in range(1, self.config.enc_depth + 1):
            x, _ = self._attention(f"encoder_l{layer}_self", x, mask)
            x = self._ffn(f"encoder_l{layer}_ffn", x)
            if hidden is not None:
                hidden.append(x)
        return self._post("encoder_top", x, stack_input, self.config.transformer_postprocess_top)

    def decode(
        self,
        trg_ids: Tensor,
        memory: Tensor,
        src_mask: Tensor,
        alignment: bool = False,
        hidden: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """States [B, T, d] that predict the targets [B, T] (…, end of sentence), each from the ones before it.

        With `alignment` also [B, T, S]: the softmax weights of head 0 of the cross attention in the layer of
        `transformer-guided-alignment-layer`. The output [B, T, d] of each layer is appended to `hidden`, in order,
        when it is given.
        """
        length = trg_ids.shape[1]
        cross_mask = _additive(src_mask)[:, None, None, :]
        causal_mask = _additive(torch.ones(length, length, dtype=torch.bool, device=trg_ids.device).tril())
        shifted = functional.pad(self._embed("decoder", trg_ids[:, :-1]), (0, 0, 1, 0))
        x = self._pre("decoder_emb", shifted + self._positions(0, length), self._emb_ops)
        stack_input, attention = x, None
        for layer in range(1, self.config.dec_depth + 1):
            x, _ = self._attention(f"decoder_l{layer}_self", x, causal_mask)
            name = f"decoder_l{layer}_context"
            wanted = alignment and layer == self.config.alignment_layer
            x, weights = self._attention(name, x, cross_mask, self._keys_values(name, memory), weights=wanted)
            attention = weights if wanted else attention
            x = self._ffn(f"decoder_l{layer}_ffn", x)
            if hidden is not None:
                hidden.append(x)
        return self._post("decoder_top", x, stack_input, self.config.transformer_postprocess_top), attention

    def start(self, memory: Tensor, src_mask: Tensor) -> DecoderState:
        """The state before the first step of incremental decoding."""
        names = [f"decoder_l{layer}_context" for layer in range(1, self.config.dec_depth + 1)]
        source = [self._keys_values(name, memory) for name in names]
        return DecoderState(source, _additive(src_mask)[:, None, None, :], [None] * self.config.dec_depth)

    def step(self, ids: Tensor | None, state: DecoderState) -> Tensor:
        """Read the pieces chosen last, ids [B, K] (None before the first step), and advance `state` by one position.

        Returns the states [B, K, d] that predict the next piece; K is 1 in the first step.
        """
        sentences = len(state.src_mask)
        if ids is None:
            embedded = state.source[0][0].new_zeros((sentences, 1, self.config.dim_emb), dtype=self.positions.dtype)
        else:
            embedded = self._embed("decoder", ids)
        x = self._pre("decoder_emb", embedded + self._positions(state.position, 1), self._emb_ops)
        stack_input, shape = x, x.shape
        for layer in range(1, self.config.dec_depth + 1):
            # Each hypothesis has a past of its own; those of one sentence share its source.
            x, state.past[layer - 1] = self._attend_past(f"decoder_l{layer}_self", x, state.past[layer - 1])
            name = f"decoder_l{layer}_context"
            x, _ = self._attention(name, x.view(shape), state.src_mask, state.source[layer - 1])
            x = self._ffn(f"decoder_l{layer}_ffn", x)
        state.position += 1
        return self._post("decoder_top", x, stack_input, self.config.transformer_postprocess_top)

    def logits(self, states: Tensor) -> Tensor:
        """Unnormalised scores [..., V] of states [..., d]."""
        config = self.config
        bias = None if config.output_omit_bias else self._get("decoder_ff_logit_out_b").view(-1)
        if config.ties_output:
            return functional.linear(states, self._get("Wemb" if config.shares_embeddings else "decoder_Wemb"), bias)
        return functional.linear(states, self._get("decoder_ff_logit_out_W").t(), bias)

    # The parts

    @property
    def _emb_ops(self) -> str:
        return self.config.transformer_postprocess_emb

    def _get(self, name: str) -> Tensor:
        tensor: Tensor = getattr(self, name)
        return tensor

    def _embed(self, side: str, ids: Tensor) -> Tensor:
        matrix = self._get("Wemb" if self.config.shares_embeddings else f"{side}_Wemb")
        return functional.embedding(ids, matrix) * math.sqrt(self.config.dim_emb)

    def _positions(self, first: int, count: int) -> Tensor:
        if first + count > len(self.positions):
            table = sinusoidal_positions(2 * (first + count), self.config.dim_emb)
            self.positions = table.to(self.positions)
        return self.positions[first : first + count]

    def _linear(self, x: Tensor, name: str, suffix: str) -> Tensor:
        return functional.linear(x, self._get(f"{name}_W{suffix}").t(), self._get(f"{name}_b{suffix}").view(-1))

    def _fused(self, x: Tensor, name: str, suffixes: str) -> Iterator[Tensor]:
        """Several projections of one input in a single product: [B, h, T, d/h] each."""
        weight = torch.cat([self._get(f"{name}_W{suffix}") for suffix in suffixes], dim=1)
        bias = torch.cat([self._get(f"{name}_b{suffix}") for suffix in suffixes], dim=1)
        projected = functional.linear(x, weight.t(), bias.view(-1))
        return (self._split_heads(part) for part in torch.chunk(projected, len(suffixes), dim=-1))

    def _split_heads(self, x: Tensor) -> Tensor:
        heads = self.config.transformer_heads
        return x.view(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(1, 2)

    def _keys_values(self, name: str, memory: Tensor) -> KeysValues:
        keys, values = self._fused(memory, name, "kv")
        return keys, values

    def _attention(
        self, name: str, x: Tensor, mask: Tensor, attended: KeysValues | None = None, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """A whole attention block: to x itself, or to the keys and values given. With `weights`, those of head 0."""
        normal = self._pre(f"{name}_Wo", x, self.config.transformer_preprocess)
        if attended is None:
            query, keys, values = self._fused(normal, name, "qkv")
        else:
            query, (keys, values) = self._split_heads(self._linear(normal, name, "q")), attended
        return self._attend(name, x, query, keys, values, mask, weights)

    def _attend_past(self, name: str, x: Tensor, past: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """The self-attention block of one more position of every hypothesis [B, K, d], and the longer past."""
        x = x.flatten(0, 1).unsqueeze(1)
        normal = self._pre(f"{name}_Wo", x, self.config.transformer_preprocess)
        query, keys, values = self._fused(normal, name, "qkv")
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        output, _ = self._attend(name, x, query, keys, values, None, False)
        return output, (keys, values)

    def _attend(
        self, name: str, x: Tensor, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        # Plain products: on sentences of usual length they are faster than fused kernels, above all backwards. And a
        # softmax in float32: on a CPU faster than one in bfloat16, and more exact.
        scores = torch.matmul(query * (1 / math.sqrt(query.shape[-1])), keys.transpose(-1, -2)).float()
        attention = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        first_head = attention[:, 0] if weights else None
        attention = attention.to(values.dtype)
        attention = self._dropout(attention, self.config.transformer_dropout_attention)
        context = torch.matmul(attention, values).transpose(1, 2).flatten(2)
        output = self._linear(context, name, "o")
        return self._post(f"{name}_Wo", output, x, self.config.transformer_postprocess), first_head

    def _ffn(self, name: str, x: Tensor) -> Tensor:
        normal = self._pre(f"{name}_ffn", x, self.config.transformer_preprocess)
        hidden = self._activate(self._linear(normal, name, "1"))
        output = self._linear(self._dropout(hidden, self.config.transformer_dropout_ffn), name, "2")
        return self._post(f"{name}_ffn", output, x, self.config.transformer_postprocess)

    def _activate(self, x: Tensor) -> Tensor:
        if self.config.transformer_ffn_activation == "relu":
            return functional.relu(x)
        if self.config.transformer_ffn_activation == "swish":
            return functional.silu(x)
        return x * torch.sigmoid(1.702 * x)

    def _pre(self, name: str, x: Tensor, operations: str) -> Tensor:
        for operation in operations:
            if operation == "d":
                x = self._dropout(x, self.config.transformer_dropout)
            else:
                x = self._layer_norm(x, name, "_pre")
        return x

    def _post(self, name: str, x: Tensor, block_input: Tensor, operations: str) -> Tensor:
        for operation in operations:
            if operation == "d":
                x = self._dropout(x, self.config.transformer_dropout)
            elif operation == "a":
                # Under autocast x is bfloat16: adding two types in one go is a slow, unvectorised loop on a CPU.
                x = x.to(block_input.dtype) + block_input
            else:
                x = self._layer_norm(x, name, "")
        return x

    def _dropout(self, x: Tensor, probability: float) -> Tensor:
        return functional.dropout(x, probability, self.training) if probability and self.training else x

    def _layer_norm(self, x: Tensor, name: str, suffix: str) -> Tensor:
        scale, bias = self._get(f"{name}_ln_scale{suffix}"), self._get(f"{name}_ln_bias{suffix}")
        return functional.layer_norm(x, x.shape[-1:], scale.view(-1), bias.view(-1), LAYER_NORM_EPSILON)


def _additive(keep: Tensor) -> Tensor:
    """A mask to add to attention scores."""
    return torch.zeros(keep.shape, device=keep.device).masked_fill(~keep, MASKED)


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Names and shapes of all parameters of an architecture, as Marian names them."""
    d, ffn = config.dim_emb, config.transformer_dim_ffn
    shapes: dict[str, tuple[int, int]] = {}

    def layer_norms(name: str, operations: str, suffix: str) -> None:
        if "n" in operations:
            shapes[f"{name}_ln_scale{suffix}"] = shapes[f"{name}_ln_bias{suffix}"] = (1, d)

    def attention(name: str) -> None:
        for part in "qkvo":
            shapes[f"{name}_W{part}"], shapes[f"{name}_b{part}"] = (d, d), (1, d)
        layer_norms(f"{name}_Wo", config.transformer_preprocess, "_pre")
        layer_norms(f"{name}_Wo", config.transformer_postprocess, "")

    def feed_forward(name: str) -> None:
        shapes[f"{name}_W1"], shapes[f"{name}_b1"] = (d, ffn), (1, ffn)
        shapes[f"{name}_W2"], shapes[f"{name}_b2"] = (ffn, d), (1, d)
        layer_norms(f"{name}_ffn", config.transformer_preprocess, "_pre")
        layer_norms(f"{name}_ffn", config.transformer_postprocess, "")

    if config.shares_embeddings:
        shapes["Wemb"] = (config.dim_vocabs[0], d)
    else:
        shapes["encoder_Wemb"], shapes["decoder_Wemb"] = (config.dim_vocabs[0], d), (config.dim_vocabs[1], d)
    for side, depth in (("encoder", config.enc_depth), ("decoder", config.dec_depth)):
        layer_norms(f"{side}_emb", config.transformer_postprocess_emb, "_pre")
        for layer in range(1, depth + 1):
            attention(f"{side}_l{layer}_self")
            if side == "decoder":
                attention(f"{side}_l{layer}_context")
            feed_forward(f"{side}_l{layer}_ffn")
        layer_norms(f"{side}_top", config.transformer_postprocess_top, "")
    if not config.ties_output:
        shapes["decoder_ff_logit_out_W"] = (d, config.dim_vocabs[1])
    if not config.output_omit_bias:
        shapes["decoder_ff_logit_out_b"] = (1, config.dim_vocabs[1])
    return shapes
