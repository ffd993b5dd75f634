"""The blocks of a transformer, computed exactly as Marian computes them.

Vaswani et al. (2017) with Marian's particulars: positions are half sines, half cosines, with half-1 in the exponent;
layer normalisation after each block (`dan`) by default; parameters have Marian's names, and matrices are [in, out].

With normalisation before a block (`transformer-preprocess: n`), self-attention normalises queries, keys and values
alike, as Marian's training and CTranslate2 do; the engine of Bergamot (Marian 1.9) normalises queries alone.

Shapes: B sentences, S source and T target positions, d width, h heads, V target pieces.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.model.config import ModelConfig
from pipeline.model.kernels import dropout_mask

LAYER_NORM_EPSILON = 1e-6
MASKED = -99999999.0  # Marian's score of a position that must not be looked at
FIRST_POSITIONS = 1024

KeysValues = tuple[Tensor, Tensor]


def sinusoidal_positions(length: int, dim: int) -> Tensor:
    """Marian's position table, float32 [length, dim]; computed in float64, as the engines' tables are."""
    half = dim // 2
    frequencies = torch.exp(-torch.arange(half, dtype=torch.float64) * (math.log(10000) / (half - 1)))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def additive_mask(keep: Tensor) -> Tensor:
    """A mask to add to attention scores: 0 where `keep`, else so low that the softmax is 0."""
    return torch.zeros(keep.shape, device=keep.device).masked_fill(~keep, MASKED)


class Blocks(ABC):
    """Embeddings, attention and feed-forward blocks, and the encoder they make; a subclass holds the parameters."""

    config: ModelConfig
    positions: Tensor
    training: bool

    @abstractmethod
    def parameter(self, name: str) -> Tensor:
        """The parameter of this name."""

    @abstractmethod
    def linear(self, x: Tensor, name: str, suffixes: tuple[str, ...]) -> Tensor:
        """x [..., in] times the matrices {name}_W{suffix}, plus {name}_b{suffix} where there is one, side by side."""

    def encode(self, src_ids: Tensor, src_mask: Tensor, hidden: list[Tensor] | None = None) -> Tensor:
        """Memory [B, S, d] of source ids [B, S], each sentence with its end, and a mask [B, S] (True: real).

        The output [B, S, d] of each layer is appended to `hidden`, in order, when it is given.
        """
        mask = additive_mask(src_mask)[:, None, None, :]
        x = stack_input = self.place("encoder", self.lookup("encoder", src_ids), 0)
        for layer in self.config.encoder_layers:
            x, _ = self.attention(f"{layer}_self", x, mask)
            x = self.feed_forward(f"{layer}_ffn", x)
            if hidden is not None:
                hidden.append(x)
        return self.post("encoder_top", x, stack_input, self.config.transformer_postprocess_top)

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        """Embeddings [B, T, d] of ids [B, T]."""
        matrix = self.parameter("Wemb" if self.config.shares_embeddings else f"{side}_Wemb")
        return functional.embedding(ids, matrix) * math.sqrt(self.config.dim_emb)

    def place(self, side: str, embedded: Tensor, first: int) -> Tensor:
        """What enters the stack of a side: embeddings [B, T, d] at the positions from `first` on."""
        end = first + embedded.shape[1]
        if end > len(self.positions):
            self.positions = sinusoidal_positions(2 * end, self.config.dim_emb).to(self.positions)
        return self.pre(f"{side}_emb", embedded + self.positions[first:end], self.config.transformer_postprocess_emb)

    def split_heads(self, x: Tensor) -> Tensor:
        """[B, T, d] as [B, h, T, d/h]."""
        heads = self.config.transformer_heads
        return x.view(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(1, 2)

    def project(self, x: Tensor, name: str, parts: str) -> tuple[Tensor, ...]:
        """Queries, keys or values (`parts`: q, k, v) of x [B, T, d], each [B, h, T, d/h]."""
        projected = self.linear(x, name, tuple(parts))
        return tuple(self.split_heads(part) for part in torch.chunk(projected, len(parts), dim=-1))

    def keys_values(self, name: str, memory: Tensor) -> KeysValues:
        """What a cross-attention block attends to."""
        keys, values = self.project(memory, name, "kv")
        return keys, values

    def attention(
        self, name: str, x: Tensor, mask: Tensor, attended: KeysValues | None = None, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """A whole attention block: to x itself, or to the keys and values given. With `weights`, those of head 0."""
        normal = self.pre(f"{name}_Wo", x, self.config.transformer_preprocess)
        if attended is None:
            query, keys, values = self.project(normal, name, "qkv")
        else:
            (query,), (keys, values) = self.project(normal, name, "q"), attended
        context, attention = self.attend(query, keys, values, mask)
        return self.attended(name, context, x), attention[:, 0] if weights else None

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The heads' contexts [B, T, d], side by side, and their attention weights [B, h, T, S]."""
        # Plain products: on sentences of usual length they are faster than fused kernels, above all backwards. And a
        # softmax in float32: on a CPU faster than one in bfloat16, and more exact.
        scores = torch.matmul(query * (1 / math.sqrt(query.shape[-1])), keys.transpose(-1, -2)).float()
        attention = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        dropped = self.dropout(attention.to(values.dtype), self.config.transformer_dropout_attention)
        return torch.matmul(dropped, values).transpose(1, 2).flatten(2), attention

    def attended(self, name: str, context: Tensor, x: Tensor) -> Tensor:
        """The end of an attention block with input x, of the heads' contexts."""
        output = self.linear(context, name, ("o",))
        return self.post(f"{name}_Wo", output, x, self.config.transformer_postprocess)

    def recurrent_inputs(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and forget gates of a recurrent block with input x [B, T, d]."""
        normal = self.pre(name, x, self.config.transformer_preprocess)
        inputs, gates = torch.chunk(self.linear(normal, name, ("", "f")), 2, dim=-1)
        return inputs, torch.sigmoid(gates.float())

    def recurrent_output(self, name: str, states: Tensor, x: Tensor) -> Tensor:
        """The end of a recurrent block with input x, of its states [B, T, d]."""
        return self.post(f"{name}_ffn", functional.relu(states), x, self.config.transformer_postprocess)

    def feed_forward(self, name: str, x: Tensor) -> Tensor:
        """A whole feed-forward block."""
        normal = self.pre(f"{name}_ffn", x, self.config.transformer_preprocess)
        hidden = self.activate(self.linear(normal, name, ("1",)))
        output = self.linear(self.dropout(hidden, self.config.transformer_dropout_ffn), name, ("2",))
        return self.post(f"{name}_ffn", output, x, self.config.transformer_postprocess)

    def activate(self, x: Tensor) -> Tensor:
        """The activation between the two products of a feed-forward block."""
        if self.config.transformer_ffn_activation == "relu":
            return functional.relu(x)
        if self.config.transformer_ffn_activation == "swish":
            return functional.silu(x)
        return x * torch.sigmoid(1.702 * x)

    def pre(self, name: str, x: Tensor, operations: str) -> Tensor:
        """The operations before a block."""
        for operation in operations:
            if operation == "d":
                x = self.dropout(x, self.config.transformer_dropout)
            else:
                x = self._layer_norm(x, name, "_pre")
        return x

    def post(self, name: str, x: Tensor, block_input: Tensor, operations: str) -> Tensor:
        """The operations after a block."""
        for operation in operations:
            if operation == "d":
                x = self.dropout(x, self.config.transformer_dropout)
            elif operation == "a":
                # Under autocast x is bfloat16: adding two types in one go is a slow, unvectorised loop on a CPU.
                x = x.to(block_input.dtype) + block_input
            else:
                x = self._layer_norm(x, name, "")
        return x

    def dropout(self, x: Tensor, probability: float) -> Tensor:
        """Dropout, in training only."""
        if not probability or not self.training:
            return x
        if x.is_cuda:
            return functional.dropout(x, probability)
        kept, scale = dropout_mask(x.shape, probability)
        return x * kept.to(x.dtype).mul_(scale)

    def _layer_norm(self, x: Tensor, name: str, suffix: str) -> Tensor:
        scale, bias = self.parameter(f"{name}_ln_scale{suffix}"), self.parameter(f"{name}_ln_bias{suffix}")
        return functional.layer_norm(x, x.shape[-1:], scale.view(-1), bias.view(-1), LAYER_NORM_EPSILON)
