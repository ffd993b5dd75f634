"""How much of the device's arithmetic training uses."""

import time

import torch

from pipeline.model.config import ModelConfig
from pipeline.train.batches import PairSizes
from pipeline.train.compute import Compute

_SIDE = {"cpu": 2048, "cuda": 8192}
_SECONDS = 0.2


def update_operations(config: ModelConfig, sizes: PairSizes) -> float:
    """Floating-point operations that an update of these sizes needs: real positions only, forward and backward.

    A product of [n, a] by [a, b] counts 2nab operations, and its backward pass twice as many, so everything counts
    three times. With width d, f the width of the feed-forward layers, and V target pieces, forward:

        encoder, per layer          S (8 d^2 + 4 d f) + 4 d SS
        decoder, per layer          T (12 d^2 + 4 d f) + 4 d TT + 4 d ST + 4 d^2 S
        output projection           2 T d V

    where S and T are the source and target positions, and SS, TT and ST the sums over pairs of the products of
    lengths (scores and weighted sums of attention). An SSRU layer has 4 T d^2 in place of the self-attention's
    8 T d^2 + 4 d TT. Embedding look-ups, normalisation, softmax and the optimizer count nothing, so that the share of
    the peak (model FLOPs utilisation; Chowdhery et al. 2022, PaLM, appendix B) cannot be flattered by them.
    """
    d, f = config.dim_emb, config.transformer_dim_ffn
    target, source = sizes.target_tokens, sizes.real - sizes.target_tokens
    encoder = source * (8 * d * d + 4 * d * f) + 4 * d * sizes.src_src
    autoregression = target * 8 * d * d + 4 * d * sizes.trg_trg
    if config.transformer_decoder_autoreg == "rnn":
        autoregression = target * 4 * d * d
    cross = target * 4 * d * d + 4 * d * sizes.src_trg + source * 4 * d * d
    decoder = autoregression + cross + target * 4 * d * f
    output = 2 * target * d * config.dim_vocabs[1]
    return 3.0 * (config.enc_depth * encoder + config.dec_depth * decoder + output)


def peak_operations(compute: Compute) -> float:
    """Operations per second of the device in a large matrix product, in the precision that training uses.

    Measured, not looked up: clocks, cooling and the processors given to this process decide. Takes about half a second.
    On a processor its own time is counted, so that other work on the machine lowers the share used and not the peak.
    """
    side = _SIDE[compute.device.type]
    dtype = compute.dtype or torch.float32
    # A generator of its own: training's is not touched.
    generator = torch.Generator(compute.device).manual_seed(1)
    matrix = torch.randn(side, side, device=compute.device, generator=generator).to(dtype)
    best = 0.0
    matrix @ matrix
    begun = time.perf_counter()
    while best == 0 or time.perf_counter() - begun < _SECONDS:
        started = _clock(compute)
        matrix @ matrix
        best = max(best, 2 * side**3 / (_clock(compute) - started))
    return best


def _clock(compute: Compute) -> float:
    """Seconds that the device has worked, each of its threads."""
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / compute.threads
