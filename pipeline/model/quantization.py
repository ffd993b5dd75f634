"""The arithmetic of engines that multiply in eight bits, simulated in torch, with gradients to train by.

A product of activations x [..., in] with a matrix W [in, out] becomes one of whole numbers from -127 to 127:

    X = clip(rint(x * a), -127, 127)    M = rint(W * m)    y = (X M) / (a * m) + b

rint rounds halves to even; sums of products are exact. What a and m are depends on the engine ("target"):

- browser (Bergamot, gemm-precision int8shiftAlphaAll): m = 127 / max|W| of the whole matrix; a is one number for each
  matrix, its alpha, found beforehand (`calibration`) and stored with the model as `{matrix}_QuantMultA`. Activations
  beyond 127 / a are clipped. The engine multiplies X + 127, bytes without a sign, and takes 127 * sum(M) off again,
  which changes nothing unless sums saturate: its SSSE3 kernels, all that WebAssembly has, add up the products of two
  neighbours, (X + 127) M at places 2i and 2i + 1, in sixteen bits and cut them at -32768 and 32767. `saturation`
  simulates that, slowly.
- ctranslate2 (compute type int8): m = 127 / max|W_j| of each output j; a = 127 / max|x| of each row of activations, at
  every product anew. Nothing is clipped, and nothing is stored beside the model.

Computed like that: every projection of attention (q, k, v, o), both feed-forward products, input and gate of a
recurrent decoder, and the output layer, tied or not. Embeddings that are looked up, of source and target, are rounded
as well (browser: one m for the matrix; ctranslate2: one for each piece). In float32 stay: the products inside attention
(queries with keys, weights with values), softmax, layer normalisation, biases, positions, activations between blocks.

Gradients pass the rounding as if it were not there (straight-through: Bengio et al. 2013); where an activation is
clipped, none passes. Under autocast the products of training run in its type, which holds whole numbers to 127 exactly
and rounds the sums; translating and scoring in float32 is what the engine does.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.common.errors import UserError
from pipeline.model.config import ModelConfig
from pipeline.model.formats import bergamot, npz
from pipeline.model.packed import PackedTransformer
from pipeline.model.transformer import Transformer

TARGETS = ("browser", "ctranslate2")
_LARGEST = 127  # no float: torch.compile makes a variable of one, and loses it in the gradient
_HALF_SCALE = 2.0**-7  # sums of products of whole numbers do not fit into float16, those of their 128ths do
# Numbers held at once while sums saturate: 64 MB.
_HELD = 1 << 24


@dataclass(frozen=True)
class Quantization:
    """How a target multiplies: see the module. `alphas` are the activation multipliers by matrix, for the browser."""

    target: str
    saturation: bool = False
    alphas: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise UserError(f"quantization {self.target!r} is not known: one of {', '.join(TARGETS)}")
        if self.saturation and self.target != "browser":
            raise UserError("quantization-saturation is of the browser's kernels: ctranslate2 has nothing like it")

    def check(self, config: ModelConfig) -> None:
        """Raise UserError when the target cannot compute such a model in eight bits, or alphas are missing."""
        if self.target == "ctranslate2":
            if config.is_recurrent:
                raise UserError("CTranslate2 cannot compute a recurrent decoder: fine-tune it for the browser instead")
            return
        bergamot.check_architecture(config)
        bergamot.check_sizes(config)
        if missing := [name for name in bergamot.product_inputs(config) if name not in self.alphas]:
            raise UserError(f"no activation multiplier is known for {missing[0]}: calibrate the model first")

    def round_matrix(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Whole numbers [out, in] of a matrix [out, in], and their multipliers [1, 1] or [out, 1]."""
        with torch.no_grad():
            multipliers = self._matrix_multipliers(matrix)
        return _round(matrix, multipliers, clips=False), multipliers

    def round_activations(self, x: Tensor, matrix: str) -> tuple[Tensor, Tensor]:
        """Whole numbers [..., in] of what is multiplied with the matrix of this name, and their multiplier: one number,
        or one for each row [..., 1]."""
        if self.target == "browser":
            alpha = torch.full((), self.alphas[matrix], device=x.device)
            return _round(x, alpha, clips=True), alpha
        with torch.no_grad():
            multipliers = _multipliers(x.abs().amax(-1, keepdim=True))
        return _round(x, multipliers, clips=False), multipliers

    def embeddings(self, rows: Tensor, matrix: Tensor) -> Tensor:
        """Rows [..., d] looked up in a matrix [V, d] of embeddings, as the target keeps them."""
        with torch.no_grad():
            multipliers = self._matrix_multipliers(matrix if self.target == "browser" else rows)
        return _round(rows, multipliers, clips=False) / multipliers

    def sums(self, x: Tensor, matrix: Tensor) -> Tensor:
        """Sums of products [..., out] of whole numbers [..., in] with a matrix of whole numbers [out, in]; under an
        autocast to float16 they are multiplied by _HALF_SCALE**2."""
        half = torch.is_autocast_enabled(x.device.type) and torch.get_autocast_dtype(x.device.type) == torch.float16
        scale = _HALF_SCALE if half else 1.0
        sums = functional.linear(x * scale, matrix * scale) if half else functional.linear(x, matrix)
        if not self.saturation:
            return sums
        with torch.no_grad():
            change = _saturated_sums(x, matrix) * scale**2 - sums.float()
        return sums + change.to(sums.dtype)

    def product(self, x: Tensor, matrix: Tensor, bias: Tensor | None, name: str) -> Tensor:
        """x [..., in] times the matrix [out, in] of this name, plus a bias [out]."""
        numbers, alpha = self.round_activations(x, name)
        rounded, multipliers = self.round_matrix(matrix)
        sums = self.sums(numbers, rounded)
        scale = 1 / (multipliers.view(-1) * alpha)
        if sums.dtype == torch.float16:
            scale = scale / _HALF_SCALE**2
        y = sums * scale
        return (y if bias is None else y + bias).to(sums.dtype)

    def _matrix_multipliers(self, matrix: Tensor) -> Tensor:
        if self.target == "browser":
            return _multipliers(matrix.abs().amax().view(1, 1))
        return _multipliers(matrix.abs().amax(-1, keepdim=True))


def _multipliers(largest: Tensor) -> Tensor:
    """What takes these absolute values to 127; 1 for zeros."""
    return torch.where(largest == 0, 1.0, _LARGEST / largest.float())


def _round(x: Tensor, multipliers: Tensor, clips: bool) -> Tensor:
    numbers: Tensor = _Round.apply(x, multipliers, clips)  # type: ignore[no-untyped-call]
    return numbers


class _Round(torch.autograd.Function):
    """clip(rint(x * multipliers), -127, 127), float32; backwards as x * multipliers, and nothing where it clips."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, multipliers: Tensor, clips: bool) -> Tensor:
        numbers = (x.float() * multipliers).round_()
        ctx.given, ctx.clips = x.dtype, clips
        ctx.save_for_backward(multipliers, *([numbers.abs() <= _LARGEST] if clips else []))
        return numbers.clamp_(-_LARGEST, _LARGEST) if clips else numbers

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        multipliers, *inside = ctx.saved_tensors
        gradient = gradients[0].float() * multipliers
        return (gradient * inside[0] if ctx.clips else gradient).to(ctx.given), None, None


def _saturated_sums(x: Tensor, matrix: Tensor) -> Tensor:
    """Sums [..., out], float32, when the products of two neighbours are added up in sixteen bits."""
    shifted = x.float().flatten(0, -2) + _LARGEST
    pairs = shifted.view(len(shifted), -1, 2).transpose(0, 1)  # [in / 2, N, 2]
    columns = matrix.float().view(len(matrix), -1, 2).permute(1, 2, 0)  # [in / 2, 2, out]
    sums = -_LARGEST * matrix.float().sum(1).expand(len(shifted), -1)
    held = max(1, _HELD // max(1, len(shifted) * len(matrix)))
    for some, theirs in zip(torch.split(pairs, held), torch.split(columns, held), strict=True):
        with torch.autocast(x.device.type, enabled=False):
            sums = sums + torch.bmm(some, theirs).clamp_(-32768, 32767).sum(0)
    return sums.view(*x.shape[:-1], len(matrix))


class QuantizedTransformer(Transformer):
    """A transformer whose products are those of a target. Its parameters are float32 and are trained as such.

    Searches and scores with it are those of the target: `InferenceModel` lays it out with the same arithmetic.
    """

    def __init__(self, config: ModelConfig, quantization: Quantization) -> None:
        quantization.check(config)
        super().__init__(config)
        self.quantization = quantization

    @classmethod
    def of(cls, model: Transformer, quantization: Quantization) -> "QuantizedTransformer":
        """A model's own parameters, not a copy, in this arithmetic."""
        quantized = cls(model.config, quantization)
        for name, parameter in model.named_parameters():
            quantized.register_parameter(name, parameter)
        quantized.positions = model.positions
        return quantized.train(model.training)

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        matrix = self.parameter("Wemb" if self.config.shares_embeddings else f"{side}_Wemb")
        rows = self.quantization.embeddings(functional.embedding(ids, matrix), matrix)
        return rows * math.sqrt(self.config.dim_emb)

    def logits(self, states: Tensor) -> Tensor:
        return self.quantization.product(states, *self.output_layer(), bergamot.output_matrix(self.config))

    def linear(self, x: Tensor, name: str, suffixes: tuple[str, ...]) -> Tensor:
        parts = []
        for suffix in suffixes:
            bias = getattr(self, f"{name}_b{suffix}", None)
            matrix = self.parameter(f"{name}_W{suffix}").t()
            flat = None if bias is None else bias.view(-1)
            parts.append(self.quantization.product(x, matrix, flat, f"{name}_W{suffix}"))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]


class PackedQuantizedTransformer(PackedTransformer):
    """As a processor trains it: on real positions alone, with attention's derivatives by hand; those of products are
    left to autograd."""

    def __init__(self, model: QuantizedTransformer, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(model, dtype)

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return self.model.lookup(side, ids)

    def linear(self, x: Tensor, name: str, suffixes: tuple[str, ...], relu: bool = False) -> Tensor:
        with self._autocast():
            y = self.model.linear(x, name, suffixes)
        return functional.relu(y) if relu else y

    def cost(self, states: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        with self._autocast():
            logits = self.model.logits(states)
        return functional.cross_entropy(logits.float(), targets, reduction="sum", label_smoothing=label_smoothing)

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32)


def save_model(model: Transformer, path: Path) -> None:
    """Write a model.npz; activation multipliers go with it as `{matrix}_QuantMultA`, where the export finds them."""
    alphas: Mapping[str, float] = model.quantization.alphas if isinstance(model, QuantizedTransformer) else {}
    multipliers = {f"{name}{bergamot.ALPHA}": np.full((1, 1), alpha, np.float32) for name, alpha in alphas.items()}
    npz.save_arrays({**npz.parameter_arrays(model), **multipliers}, model.config, path)


def load_alphas(path: Path) -> dict[str, float]:
    """The activation multipliers by matrix that a model.npz carries; none when it was trained in floats."""
    arrays = npz.load_arrays(path)
    return {
        name.removesuffix(bergamot.ALPHA): float(array.reshape(-1)[0])
        for name, array in arrays.items()
        if name.endswith(bergamot.ALPHA)
    }
