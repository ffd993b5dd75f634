"""The encoder-decoder transformer, with the parameters that training changes.

What its blocks compute stands in `blocks`; here are the parameters under Marian's names, their first values, and the
decoder as it is trained: reading whole targets, its first input an all-zero vector. `inference` has the decoder that
writes a translation piece by piece.

Shapes: B sentences, S source and T target positions, d width, V target pieces.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.model.blocks import (
    FIRST_POSITIONS,
    LAYER_NORM_EPSILON,
    MASKED,
    Blocks,
    additive_mask,
    sinusoidal_positions,
)
from pipeline.model.config import ModelConfig
from pipeline.model.ssru import ssru_states

__all__ = ["LAYER_NORM_EPSILON", "MASKED", "Transformer", "parameter_shapes", "sinusoidal_positions"]


class Transformer(Blocks, nn.Module):
    """The model. Parameters are zero until `init_parameters` or a loader fills them."""

    positions: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        for name, shape in parameter_shapes(config).items():
            fill = 1.0 if "_ln_scale" in name else 0.0
            self.register_parameter(name, nn.Parameter(torch.full(shape, fill)))
        table = sinusoidal_positions(FIRST_POSITIONS, config.dim_emb)
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
        cross_mask = additive_mask(src_mask)[:, None, None, :]
        causal_mask = additive_mask(torch.ones(length, length, dtype=torch.bool, device=trg_ids.device).tril())
        shifted = functional.pad(self.lookup("decoder", trg_ids[:, :-1]), (0, 0, 1, 0))
        x = stack_input = self.place("decoder", shifted, 0)
        attention = None
        for number, layer in enumerate(self.config.decoder_layers, start=1):
            if self.config.is_recurrent:
                states = ssru_states(*self.recurrent_inputs(f"{layer}_rnn", x))
                x = self.recurrent_output(f"{layer}_rnn", states, x)
            else:
                x, _ = self.attention(f"{layer}_self", x, causal_mask)
            name, wanted = f"{layer}_context", alignment and number == self.config.alignment_layer
            x, weights = self.attention(name, x, cross_mask, self.keys_values(name, memory), weights=wanted)
            attention = weights if wanted else attention
            x = self.feed_forward(f"{layer}_ffn", x)
            if hidden is not None:
                hidden.append(x)
        return self.post("decoder_top", x, stack_input, self.config.transformer_postprocess_top), attention

    def logits(self, states: Tensor) -> Tensor:
        """Unnormalised scores [..., V] of states [..., d]."""
        return functional.linear(states, *self.output_layer())

    def output_layer(self) -> tuple[Tensor, Tensor | None]:
        """The matrix [V, d] and the bias [V] of the output layer."""
        config = self.config
        bias = None if config.output_omit_bias else self.parameter("decoder_ff_logit_out_b").view(-1)
        if config.ties_output:
            return self.parameter("Wemb" if config.shares_embeddings else "decoder_Wemb"), bias
        return self.parameter("decoder_ff_logit_out_W").t(), bias

    def parameter(self, name: str) -> Tensor:
        tensor: Tensor = getattr(self, name)
        return tensor

    def linear(self, x: Tensor, name: str, suffixes: tuple[str, ...]) -> Tensor:
        weights = [self.parameter(f"{name}_W{suffix}") for suffix in suffixes]
        biases = [getattr(self, f"{name}_b{suffix}", None) for suffix in suffixes]
        if len(suffixes) == 1:
            return functional.linear(x, weights[0].t(), None if biases[0] is None else biases[0].view(-1))
        # Several projections of one input in a single product.
        bias = torch.cat(
            [
                weight.new_zeros(1, weight.shape[1]) if bias is None else bias
                for weight, bias in zip(weights, biases, strict=True)
            ],
            dim=1,
        )
        return functional.linear(x, torch.cat(weights, dim=1).t(), bias.view(-1))


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

    def recurrence(name: str) -> None:
        shapes[f"{name}_W"], shapes[f"{name}_Wf"], shapes[f"{name}_bf"] = (d, d), (d, d), (1, d)
        layer_norms(name, config.transformer_preprocess, "_pre")
        layer_norms(f"{name}_ffn", config.transformer_postprocess, "")

    def feed_forward(name: str) -> None:
        shapes[f"{name}_W1"], shapes[f"{name}_b1"] = (d, ffn), (1, ffn)
        shapes[f"{name}_W2"], shapes[f"{name}_b2"] = (ffn, d), (1, d)
        layer_norms(f"{name}_ffn", config.transformer_preprocess, "_pre")
        layer_norms(f"{name}_ffn", config.transformer_postprocess, "")

    if config.shares_embeddings:
        shapes["Wemb"] = (config.dim_vocabs[0], d)
    else:
        shapes["encoder_Wemb"], shapes["decoder_Wemb"] = (config.dim_vocabs[0], d), (config.dim_vocabs[1], d)
    for layer in config.encoder_layers:
        attention(f"{layer}_self")
        feed_forward(f"{layer}_ffn")
    for layer in config.decoder_layers:
        if config.is_recurrent:
            recurrence(f"{layer}_rnn")
        else:
            attention(f"{layer}_self")
        attention(f"{layer}_context")
        feed_forward(f"{layer}_ffn")
    for side in ("encoder", "decoder"):
        layer_norms(f"{side}_emb", config.transformer_postprocess_emb, "_pre")
        layer_norms(f"{side}_top", config.transformer_postprocess_top, "")
    if not config.ties_output:
        shapes["decoder_ff_logit_out_W"] = (d, config.dim_vocabs[1])
    if not config.output_omit_bias:
        shapes["decoder_ff_logit_out_b"] = (1, config.dim_vocabs[1])
    return shapes
