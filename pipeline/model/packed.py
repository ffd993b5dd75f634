"""The transformer as it is trained on a processor: on real positions alone, with derivatives by hand (`kernels`).

A batch of sentences of different lengths is a tenth padding on one side or the other. Everything but attention looks at
one position at a time, so padding is left out there, and is put back around attention. Results are the same.

Shapes: N real positions of a side (source: M), B sentences, T and S positions with padding, d width.
"""

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.model import kernels
from pipeline.model.blocks import Blocks, additive_mask, sinusoidal_positions
from pipeline.model.config import ModelConfig
from pipeline.model.kernels import Packing
from pipeline.model.transformer import Transformer


class PackedTransformer(Blocks):
    """Trains the parameters of `model`, which stay where they are; matrix products run in `dtype`."""

    def __init__(self, model: Transformer, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.config, self.dtype = model, model.config, dtype

    @staticmethod
    def can_train(config: ModelConfig) -> bool:
        """Whether this torch has the products, and the architecture neither a recurrent decoder nor dropout inside
        attention.
        """
        return (
            bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
            and not config.is_recurrent
            and not config.transformer_dropout_attention
        )

    @property
    def training(self) -> bool:  # type: ignore[override]
        return self.model.training

    @property
    def positions(self) -> Tensor:
        return self.model.positions

    @positions.setter
    def positions(self, table: Tensor) -> None:
        self.model.positions = table

    def parameter(self, name: str) -> Tensor:
        return self.model.parameter(name)

    def states(
        self, src: Tensor, src_mask: Tensor, trg: Tensor, trg_mask: Tensor, alignment: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """States [N, d] that predict the real targets, one sentence after the other, of sources [B, S] and targets
        [B, T] with their masks; with `alignment`, attention [B, T, S] as `Transformer.decode` gives it.
        """
        source, target = Packing.of(src_mask), Packing.of(trg_mask)
        src_scores = additive_mask(src_mask)[:, None, None, :]
        x = stack_input = self._enter("encoder", source, self.lookup("encoder", source.pack(src)))
        for layer in self.config.encoder_layers:
            x, _ = self._attention_block(f"{layer}_self", x, None, (source, source), src_scores)
            x = self.feed_forward(f"{layer}_ffn", x)
        memory = self.post("encoder_top", x, stack_input, self.config.transformer_postprocess_top)

        causal = additive_mask(torch.ones(target.length, target.length, dtype=torch.bool).tril())
        # The decoder reads the piece before, and first of all nothing: zeros.
        read = self.lookup("decoder", target.pack(functional.pad(trg[:, :-1], (1, 0)))) * (target.columns > 0)[:, None]
        x = stack_input = self._enter("decoder", target, read)
        attention = None
        for number, layer in enumerate(self.config.decoder_layers, start=1):
            x, _ = self._attention_block(f"{layer}_self", x, None, (target, target), causal)
            x, weights = self._attention_block(f"{layer}_context", x, memory, (target, source), src_scores)
            attention = weights if alignment and number == self.config.alignment_layer else attention
            x = self.feed_forward(f"{layer}_ffn", x)
        return self.post("decoder_top", x, stack_input, self.config.transformer_postprocess_top), attention

    def _enter(self, side: str, packing: Packing, embedded: Tensor) -> Tensor:
        if packing.length > len(self.positions):
            self.positions = sinusoidal_positions(2 * packing.length, self.config.dim_emb)
        placed = embedded + self.positions[packing.columns]
        return self.pre(f"{side}_emb", placed, self.config.transformer_postprocess_emb)

    def _attention_block(
        self, name: str, x: Tensor, memory: Tensor | None, packings: tuple[Packing, Packing], mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        normal = self.pre(f"{name}_Wo", x, self.config.transformer_preprocess)
        if memory is None:
            queries, attended = self.linear(normal, name, ("q", "k", "v")), None
        else:
            queries, attended = self.linear(normal, name, ("q",)), self.linear(memory, name, ("k", "v"))
        context, weights = kernels.attention(queries, attended, packings, mask, self.config.transformer_heads)
        output = self.linear(context, name, ("o",))
        return self.post(f"{name}_Wo", output, x, self.config.transformer_postprocess), weights

    def linear(self, x: Tensor, name: str, suffixes: tuple[str, ...], relu: bool = False) -> Tensor:
        weights = [self.parameter(f"{name}_W{suffix}") for suffix in suffixes]
        biases = [getattr(self.model, f"{name}_b{suffix}", None) for suffix in suffixes]
        return kernels.linear(x, weights, biases, self.dtype, relu)

    def feed_forward(self, name: str, x: Tensor) -> Tensor:
        if self.config.transformer_ffn_activation != "relu":
            return super().feed_forward(name, x)
        hidden = self.linear(self.pre(f"{name}_ffn", x, self.config.transformer_preprocess), name, ("1",), relu=True)
        output = self.linear(self.dropout(hidden, self.config.transformer_dropout_ffn), name, ("2",))
        return self.post(f"{name}_ffn", output, x, self.config.transformer_postprocess)

    def post(self, name: str, x: Tensor, block_input: Tensor, operations: str) -> Tensor:
        probability = self.config.transformer_dropout if self.training else 0.0
        if operations.startswith("da") and probability:
            x, operations = kernels.dropout_add(x, block_input, probability), operations[2:]
        return super().post(name, x, block_input, operations)

    def cost(self, states: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Label-smoothed cross-entropy of targets [N], summed over them, of the states [N, d] that predict them."""
        return kernels.output_cost(states, *self.model.output_layer(), targets, label_smoothing, self.dtype)
