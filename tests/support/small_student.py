"""A student that learns a small part of the toy languages in some seconds, well enough that its translations mean
something: for engines that are to translate alike."""

import functools
import random
from typing import Any

import torch
from tiny_model import padded, tiny_config, tiny_vocab
from toy_language import ToyLanguage

from pipeline.model.transformer import Transformer

STEPS, BATCH, WARMUP = 250, 32, 40
LEARNING_RATE = 8e-3
RECURRENT = {"transformer_decoder_autoreg": "rnn", "dec_cell": "ssru"}


@functools.cache
def small_pairs(count: int, seed: int = 1) -> list[tuple[str, str]]:
    language, maker = ToyLanguage(), random.Random(seed)
    language.nouns, language.verbs, language.adjectives = (
        words[:count] for words, count in ((language.nouns, 12), (language.verbs, 8), (language.adjectives, 6))
    )
    return [language.pair(maker) for _ in range(count)]


@functools.cache
def small_student(**changes: Any) -> Transformer:
    """The student, in evaluation mode. Tests must not change it."""
    sizes = {"dim_emb": 64, "transformer_dim_ffn": 128, "enc_depth": 1, "dec_depth": 1}
    model = Transformer(tiny_config(**sizes | changes))
    model.init_parameters(1)
    pairs = sorted(small_pairs(STEPS * BATCH), key=lambda pair: len(pair[0]))
    vocab = tiny_vocab()
    sources, targets = (vocab.encode([pair[side] for pair in pairs]) for side in (0, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARMUP) * (1 - step / (STEPS + 1))
    )
    for batch in torch.randperm(STEPS, generator=torch.Generator().manual_seed(1)).tolist():
        rows = slice(batch * BATCH, (batch + 1) * BATCH)
        (src, src_mask), (trg, trg_mask) = padded(sources[rows]), padded(targets[rows])
        logits, _ = model(src, src_mask, trg)
        loss = torch.nn.functional.cross_entropy(logits[trg_mask], trg[trg_mask], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()
