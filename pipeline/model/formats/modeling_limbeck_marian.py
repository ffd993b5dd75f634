"""MarianMTModel with Marian's own positions and layer normalisation: it computes what the model was trained with.

Transformers' own class differs in two details: its positions have i/half in the exponent where Marian has i/(half-1),
and its layer normalisation has an epsilon of 1e-5 in place of 1e-6. This file lies beside the weights:

    AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
"""

import math

import torch
from torch import nn
from transformers import MarianConfig, MarianMTModel
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

LAYER_NORM_EPSILON = 1e-6


class MarianPositions(MarianSinusoidalPositionalEmbedding):
    """Positions [T, d] (half sines, half cosines) computed when they are needed, to any length.

    The table of the base class goes unused: files of weights do not hold it, and loading fills it with other values.
    """

    def forward(
        self,
        input_ids_shape: torch.Size,
        past_key_values_length: int = 0,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        device = self.weight.device
        if position_ids is None:
            position_ids = torch.arange(input_ids_shape[1], device=device) + past_key_values_length
        # Not every accelerator has float64.
        exact = torch.float32 if device.type == "mps" else torch.float64
        half = self.embedding_dim // 2
        frequencies = torch.exp(-torch.arange(half, dtype=exact, device=device) * (math.log(10000) / (half - 1)))
        angles = position_ids.to(device, exact).unsqueeze(-1) * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.weight.dtype)


class LimbeckMarianMTModel(MarianMTModel):
    """A translation model exactly as Marian and Limbeck compute it."""

    def __init__(self, config: MarianConfig) -> None:
        super().__init__(config)
        for stack in (self.model.encoder, self.model.decoder):
            stack.embed_positions = MarianPositions(config.max_position_embeddings, config.d_model, config.pad_token_id)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = LAYER_NORM_EPSILON
