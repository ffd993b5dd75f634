"""A model laid out for translating: the decoder that writes a translation piece by piece.

Every matrix is joined with those that multiply the same input, once, and on a processor repacked into the blocks that
its widest instructions want. Keys, values and recurrent states of what was written stay where they were: a mask says
which of them belong to which hypothesis, so that choosing among hypotheses moves hardly any memory.

Shapes: B sentences of K hypotheses each, S source positions, d width, h heads, V target pieces.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.model.blocks import MASKED, Blocks, KeysValues, additive_mask
from pipeline.model.formats.bergamot import output_matrix
from pipeline.model.quantization import Quantization, QuantizedTransformer
from pipeline.model.ssru import ssru_step
from pipeline.model.transformer import Transformer

_FIRST_ROOM = 64  # places for keys and values at first; doubled whenever they are full
_SHORT = 40  # sources of fewer pieces are faster in plain products than in a fused kernel of attention
VOCAB_BLOCK = 64  # the output layer's width is a multiple of it


class Projection:
    """x [..., in] times a fixed matrix [out, in] plus a bias [out], in the matrix's type."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._dtype, self._bias = weight.dtype, bias.to(weight.dtype)
        # MKL, which torch multiplies float32 matrices with, leaves AVX-512 unused on processors of other makers.
        self._packed = _can_pack(weight)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, None) if self._packed else weight

    def with_bias(self, bias: Tensor) -> "Projection":
        """The same matrix with another bias."""
        other = copy.copy(self)
        other._bias = bias.to(self._dtype)
        return other

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(self._dtype)
        if not self._packed:
            return functional.linear(x, self._weight, self._bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return product


class QuantizedProjection(Projection):
    """The same in the arithmetic of an 8-bit engine: a matrix of whole numbers [out, in], its multipliers [1, 1] or
    [out, 1], a bias [out], and the name of the matrix."""

    def __init__(
        self, quantization: Quantization, weight: Tensor, multipliers: Tensor, bias: Tensor, name: str
    ) -> None:
        super().__init__(weight, torch.zeros_like(bias))
        self._quantization, self._multipliers, self._added, self._name = quantization, multipliers, bias, name
        self._saturating = weight if quantization.saturation else None

    def with_bias(self, bias: Tensor) -> "QuantizedProjection":
        other = copy.copy(self)
        other._added = bias
        return other

    def __call__(self, x: Tensor) -> Tensor:
        numbers, alpha = self._quantization.round_activations(x, self._name)
        if self._saturating is None:
            sums = super().__call__(numbers)
        else:
            sums = self._quantization.sums(numbers, self._saturating)
        return sums * (1 / (self._multipliers.view(-1) * alpha)) + self._added


class SideBySide:
    """Several projections of one input."""

    def __init__(self, projections: Sequence[Projection]) -> None:
        self._projections = projections

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([projection(x) for projection in self._projections], dim=-1)


def _can_pack(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32 and torch._C._has_mkldnn


@dataclass
class Past:
    """What self-attention looks back at: keys and values [B, h, room, d/h], of which the first `used` places count."""

    keys: Tensor
    values: Tensor

    def room_for(self, places: int) -> None:
        """Make room for so many places in all."""
        room = self.keys.shape[2]
        if places > room:
            more = max(places, 2 * room) - room
            self.keys = functional.pad(self.keys, (0, 0, 0, more))
            self.values = functional.pad(self.values, (0, 0, 0, more))


@dataclass
class DecoderState:
    """What an incremental decoder keeps, for B sentences of K hypotheses each.

    `source` holds, per layer, the cross attention's keys and values [B, h, S, d/h]; `src_mask` is the additive mask
    [B, 1, 1, S]. Per layer there is a `past` of self-attention, or a recurrent state [B, K, d]. All hypotheses of a
    sentence write into one past; `lineage`, the additive mask [B, K, places], says which of them see what. It is None
    as long as there is one hypothesis each, which sees everything.
    """

    source: list[KeysValues]
    src_mask: Tensor
    past: list[Past]
    recurrent: list[Tensor | None]
    lineage: Tensor | None = None
    places: int = 0
    position: int = 0

    def select(self, sentences: Tensor | None, parents: Tensor | None) -> None:
        """Keep these sentences (indices [B'], into B; None: all), with hypotheses that go on from the `parents` of the
        same sentence (indices [B', K'], into K; None: each from itself)."""
        if sentences is not None:
            self.source = [(keys[sentences], values[sentences]) for keys, values in self.source]
            self.src_mask = self.src_mask[sentences]
            for past in self.past:
                past.keys, past.values = past.keys[sentences], past.values[sentences]
            self.recurrent = [None if layer is None else layer[sentences] for layer in self.recurrent]
            self.lineage = None if self.lineage is None else self.lineage[sentences]
        if parents is not None:
            self.recurrent = [None if layer is None else _gather(layer, parents) for layer in self.recurrent]
            if self.lineage is None and parents.shape[1] > 1:
                self.lineage = torch.zeros((*parents.shape, self.places), device=parents.device)
            elif self.lineage is not None:
                self.lineage = _gather(self.lineage, parents)


def _gather(rows: Tensor, indices: Tensor) -> Tensor:
    """Rows [B, K, n] at indices [B, K']."""
    return rows.gather(1, indices.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))


class InferenceModel(Blocks):
    """The weights of a model as they were when this was made, in a type: `dtype` is that of the matrices' products,
    while normalisation, softmax and the sums between blocks stay in float32. A model in the arithmetic of an 8-bit
    engine keeps it, and has float32 elsewhere, as such engines do."""

    training = False

    def __init__(self, model: Transformer, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.positions = model.config, model.positions
        self._quantization = model.quantization if isinstance(model, QuantizedTransformer) else None
        self.dtype = torch.float32 if self._quantization else dtype
        parameters = {name: value.detach() for name, value in model.named_parameters()}
        self._parameters = {name: value for name, value in parameters.items() if len(value) == 1 or "Wemb" in name}
        if self._quantization:
            for name in [name for name in self._parameters if "Wemb" in name]:
                self._parameters[name] = self._quantization.embeddings(parameters[name], parameters[name])
        self._projections: dict[tuple[str, tuple[str, ...]], Projection | SideBySide] = {}
        for layer in self.config.encoder_layers:
            self._join(parameters, f"{layer}_self", ("q", "k", "v"), ("o",))
            self._join(parameters, f"{layer}_ffn", ("1",), ("2",))
        for layer in self.config.decoder_layers:
            if self.config.is_recurrent:
                self._join(parameters, f"{layer}_rnn", ("", "f"))
            else:
                self._join(parameters, f"{layer}_self", ("q", "k", "v"), ("o",))
            self._join(parameters, f"{layer}_context", ("q",), ("k", "v"), ("o",))
            self._join(parameters, f"{layer}_ffn", ("1",), ("2",))
        weight, bias = model.output_layer()
        self._output = weight.detach(), weight.new_zeros(len(weight)) if bias is None else bias.detach().clone()
        self._output_multipliers = weight.new_ones(len(weight), 1)
        if self._quantization:
            rounded, multipliers = self._quantization.round_matrix(weight.detach())
            self._output, self._output_multipliers = (rounded, self._output[1]), multipliers.expand(len(weight), 1)
        self._whole_output: Projection | None = None

    def _join(self, parameters: dict[str, Tensor], name: str, *products: tuple[str, ...]) -> None:
        for suffixes in products:
            weights = [parameters[f"{name}_W{suffix}"].t() for suffix in suffixes]
            biases = [
                parameters.get(f"{name}_b{suffix}", weight.new_zeros(1, len(weight))).view(-1)
                for suffix, weight in zip(suffixes, weights, strict=True)
            ]
            if self._quantization:
                names = [f"{name}_W{suffix}" for suffix in suffixes]
                self._projections[name, suffixes] = SideBySide(
                    [
                        QuantizedProjection(self._quantization, *self._quantization.round_matrix(weight), bias, matrix)
                        for weight, bias, matrix in zip(weights, biases, names, strict=True)
                    ]
                )
                continue
            self._projections[name, suffixes] = Projection(torch.cat(weights).to(self.dtype), torch.cat(biases))

    def parameter(self, name: str) -> Tensor:
        return self._parameters[name]

    def linear(self, x: Tensor, name: str, suffixes: tuple[str, ...]) -> Tensor:
        return self._projections[name, suffixes](x)

    def encode(self, src_ids: Tensor, src_mask: Tensor, hidden: list[Tensor] | None = None) -> Tensor:
        """As the trained model's, but only real positions [N, d] are multiplied, and padding is zero."""
        if hidden is not None:
            raise ValueError("hidden states are for training: use the Transformer")
        sentences, length = src_ids.shape
        real = src_mask.flatten().nonzero().squeeze(1)
        padded = len(real) < src_mask.numel()
        mask = additive_mask(src_mask)[:, None, None, :] if padded else None

        def spread(rows: Tensor) -> Tensor:
            if padded:
                rows = rows.new_zeros((src_mask.numel(), rows.shape[-1])).index_copy_(0, real, rows)
            return rows.view(sentences, length, -1)

        def gathered(matrix: Tensor) -> Tensor:
            rows = matrix.flatten(0, 1)
            return rows[real] if padded else rows

        x = stack_input = gathered(self.place("encoder", self.lookup("encoder", src_ids), 0))
        for layer in self.config.encoder_layers:
            name = f"{layer}_self"
            normal = self.pre(f"{name}_Wo", x, self.config.transformer_preprocess)
            projected = torch.chunk(spread(self.linear(normal, name, ("q", "k", "v"))), 3, dim=-1)
            query, keys, values = (self.split_heads(part) for part in projected)
            if length < _SHORT:
                context, _ = self.attend(query, keys, values, mask)
            else:
                fused = functional.scaled_dot_product_attention(
                    query, keys, values, None if mask is None else mask.to(query.dtype)
                )
                context = fused.transpose(1, 2).flatten(2)
            x = self.attended(name, gathered(context), x)
            x = self.feed_forward(f"{layer}_ffn", x)
        return spread(self.post("encoder_top", x, stack_input, self.config.transformer_postprocess_top))

    def output_layer(self, banned: Sequence[int], candidates: Tensor | None = None) -> Projection:
        """States [..., d] to scores [..., V'] of all target pieces, or of the candidates (ids [C]) alone.

        V' is rounded up to a multiple of VOCAB_BLOCK. Banned pieces and the columns that are no piece score -inf.
        """
        weight, bias = self._output
        ids = torch.arange(len(weight), device=weight.device) if candidates is None else candidates
        filling = -len(ids) % VOCAB_BLOCK
        ruled_out = torch.isin(ids, torch.tensor(list(banned), dtype=torch.long, device=weight.device))
        bias = functional.pad(bias[ids].masked_fill(ruled_out, -math.inf), (0, filling), value=-math.inf)
        if candidates is not None:
            return self._output_projection(ids, filling, bias)
        if self._whole_output is None:
            self._whole_output = self._output_projection(ids, filling, bias)
        return self._whole_output.with_bias(bias)

    def _output_projection(self, ids: Tensor, filling: int, bias: Tensor) -> Projection:
        rows = functional.pad(self._output[0][ids], (0, 0, 0, filling))
        if self._quantization is None:
            return Projection(rows.to(self.dtype), bias)
        multipliers = functional.pad(self._output_multipliers[ids], (0, 0, 0, filling), value=1.0)
        return QuantizedProjection(self._quantization, rows, multipliers, bias, output_matrix(self.config))

    def start(self, memory: Tensor, src_mask: Tensor) -> DecoderState:
        """The state before the first step, of a source's memory [B, S, d] and mask [B, S]."""
        source = [self.keys_values(f"{layer}_context", memory) for layer in self.config.decoder_layers]
        heads, depth = self.config.transformer_heads, self.config.dec_depth
        empty = memory.new_empty((len(memory), heads, _FIRST_ROOM, self.config.dim_emb // heads), dtype=self.dtype)
        past = [] if self.config.is_recurrent else [Past(empty.clone(), empty.clone()) for _ in range(depth)]
        recurrent: list[Tensor | None] = [None] * depth if self.config.is_recurrent else []
        source = [(keys.contiguous(), values.contiguous()) for keys, values in source]
        return DecoderState(source, additive_mask(src_mask)[:, None, None, :], past, recurrent)

    def step(self, ids: Tensor | None, state: DecoderState) -> Tensor:
        """Read the pieces chosen last, ids [B, K] (None before the first step), and advance `state` by one position.

        Returns the states [B, K, d] that predict the next piece; K is 1 in the first step.
        """
        if ids is None:
            embedded = torch.zeros((len(state.src_mask), 1, self.config.dim_emb), device=state.src_mask.device)
        else:
            embedded = self.lookup("decoder", ids)
        sentences, lanes = embedded.shape[:2]
        # All hypotheses stand at the same position.
        x = self.place("decoder", embedded.view(-1, 1, self.config.dim_emb), state.position).view(embedded.shape)
        stack_input = x
        if state.lineage is not None:
            own = torch.full((lanes, lanes), MASKED, device=x.device).fill_diagonal_(0)
            state.lineage = torch.cat([state.lineage, own.expand(sentences, -1, -1)], dim=-1)
        for number, layer in enumerate(self.config.decoder_layers):
            if self.config.is_recurrent:
                name = f"{layer}_rnn"
                recurrent = ssru_step(*self.recurrent_inputs(name, x), state.recurrent[number])
                state.recurrent[number], x = recurrent, self.recurrent_output(name, recurrent, x)
            else:
                x = self._attend_past(f"{layer}_self", x, state, state.past[number])
            x, _ = self.attention(f"{layer}_context", x, state.src_mask, state.source[number])
            x = self.feed_forward(f"{layer}_ffn", x)
        state.position, state.places = state.position + 1, state.places + lanes
        return self.post("decoder_top", x, stack_input, self.config.transformer_postprocess_top)

    def _attend_past(self, name: str, x: Tensor, state: DecoderState, past: Past) -> Tensor:
        normal = self.pre(f"{name}_Wo", x, self.config.transformer_preprocess)
        query, keys, values = self.project(normal, name, "qkv")
        end = state.places + x.shape[1]
        past.room_for(end)
        past.keys[:, :, state.places : end] = keys
        past.values[:, :, state.places : end] = values
        mask = None if state.lineage is None else state.lineage.unsqueeze(1)
        context, _ = self.attend(query, past.keys[:, :, :end], past.values[:, :, :end], mask)
        return self.attended(name, context, x)
