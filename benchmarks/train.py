"""Speed of training, beside torch's own nn.Transformer of the same size.

Times whole updates (forward, loss, backward, clipping, Adam) of a tiny student on synthetic batches whose lengths are
distributed like those of real text, and prints target tokens per second, of processor time and thread on a processor,
of wall time on a GPU. The peer is measured out of the box (float32, unfused Adam) and with the same knobs as ours
(bfloat16 where we choose it, fused Adam); it shares our batches, tied embeddings and label smoothing. Its loss skips
padding by index, as its users write it, while ours multiplies only real tokens by the vocabulary. Out of the box it
runs in a process of its own, without our settings of torch and of the allocator. Rounds are interleaved, so that a busy
machine slows all alike.
"""

import argparse
import contextlib
import logging
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.model.transformer import Transformer
from pipeline.train.batches import PairSizes, Pool
from pipeline.train.compute import Compute, choose_compute
from pipeline.train.data import Update
from pipeline.train.mixture import DataPosition
from pipeline.train.objective import Objective
from pipeline.train.optimizer import make_optimizer
from pipeline.train.options import TrainingOptions, model_config
from pipeline.train.ragged import Ragged

VOCAB = 8000
EXAMPLE = """example:
  LIMBECK_CPUS=1 python benchmarks/train.py --rounds 3
"""


@dataclass(frozen=True)
class Contender:
    name: str
    step: Callable[[Update], None]


class Peer(nn.Module):
    """nn.Transformer with one tied embedding matrix, as its documentation suggests to build it."""

    def __init__(self, options: TrainingOptions) -> None:
        super().__init__()
        self.width = options.dim_emb
        self.embedding = nn.Embedding(VOCAB, self.width)
        nn.init.normal_(self.embedding.weight, std=self.width**-0.5)
        self.transformer = nn.Transformer(
            self.width,
            options.transformer_heads,
            options.enc_depth,
            options.dec_depth,
            options.transformer_dim_ffn,
            dropout=options.transformer_dropout,
            batch_first=True,
        )
        self.dropout = nn.Dropout(options.transformer_dropout)
        places = torch.arange(512)[:, None] * torch.exp(torch.arange(0, self.width, 2) * (-math.log(1e4) / self.width))
        self.register_buffer("positions", torch.cat([places.sin(), places.cos()], 1))

    def embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(ids) * math.sqrt(self.width)
        positions = self.get_buffer("positions")[: ids.shape[1]]
        return self.dropout(embedded + positions)  # type: ignore[no-any-return]

    def forward(self, src: Tensor, src_mask: Tensor, trg: Tensor) -> Tensor:
        """Logits [B, T, V] for targets [B, T]; the piece before the first is 0."""
        causal = nn.Transformer.generate_square_subsequent_mask(trg.shape[1], device=trg.device)
        shifted = functional.pad(trg[:, :-1], (1, 0))
        states = self.transformer(
            self.embed(src),
            self.embed(shifted),
            tgt_mask=causal,
            src_key_padding_mask=~src_mask,
            memory_key_padding_mask=~src_mask,
            tgt_is_causal=True,
        )
        return functional.linear(states, self.embedding.weight)


def make_updates(count: int, words: int, seed: int = 1) -> list[Update]:
    """Updates of one batch each; lengths log-normal like those of a mixed en-de corpus in 8000 pieces."""
    rng = np.random.default_rng(seed)
    pairs = 20_000
    src = np.clip(rng.lognormal(2.9, 0.6, pairs).astype(int), 3, 100)
    trg = np.clip(np.rint(src * np.exp(rng.normal(0.1, 0.2, pairs))).astype(int), 3, 100)
    pool = Pool(
        Ragged.of([rng.integers(2, VOCAB, length).tolist() for length in src]),
        Ragged.of([rng.integers(2, VOCAB, length).tolist() for length in trg]),
        None,
    )
    packed = pool.pack(words)
    chosen = [packed[index] for index in rng.permutation(len(packed))[:count]]
    return [Update([pool.batch(rows)], pool.sizes(rows), 0.0, DataPosition()) for rows in chosen]


def ours(options: TrainingOptions, compute: Compute) -> Contender:
    model = Transformer(model_config(options, (VOCAB, VOCAB), shared_vocab=True))
    model.init_parameters(options.seed)
    model.to(compute.device).train()
    objective = Objective(model, options, compute)
    optimizer = make_optimizer(objective.parameters(), options)

    def step(update: Update) -> None:
        optimizer.zero_grad(set_to_none=True)
        objective.backward(update.batches, update.sizes.target_tokens)
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
        optimizer.step()

    return Contender("limbeck", step)


def peer(options: TrainingOptions, compute: Compute, tuned: bool) -> Contender:
    model = Peer(options).to(compute.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learn_rate, fused=True if tuned else None)

    def step(update: Update) -> None:
        optimizer.zero_grad(set_to_none=True)
        (batch,) = update.batches
        batch = batch.to(compute.device)
        with compute.autocast() if tuned else contextlib.nullcontext():
            logits = model(batch.src, batch.src_mask, batch.trg)
        targets = batch.trg.masked_fill(~batch.trg_mask, -100)
        loss = functional.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), label_smoothing=options.label_smoothing
        )
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
        optimizer.step()

    return Contender("nn.Transformer, same knobs", step)


def untouched(device: str) -> Compute:
    """torch as it comes; only the number of threads is ours, to compare like with like."""
    threads = int(os.environ.get("LIMBECK_CPUS", os.cpu_count() or 1))
    torch.set_num_threads(threads)
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return Compute(torch.device("cuda" if cuda else "cpu"), threads)


def elsewhere() -> float:
    """One round of the untuned peer in a process of its own."""
    command = [sys.executable, *sys.argv, "--out-of-the-box"]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(contender: Contender, updates: list[Update], compute: Compute) -> float:
    """Target tokens per second over some updates."""

    def clock() -> float:
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time() / compute.threads

    begun = clock()
    for update in updates:
        contender.step(update)
    return sum(update.sizes.target_tokens for update in updates) / (clock() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each contender (default: 3)")
    parser.add_argument("--updates", type=int, default=6, help="updates in a round (default: 6)")
    parser.add_argument("--words", type=int, default=4000, help="mini-batch-words (default: 4000)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--out-of-the-box", action="store_true", help="one round of the untuned peer, its rate alone")
    given = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(1)
    options = TrainingOptions(
        dim_emb=256, transformer_dim_ffn=1536, enc_depth=6, dec_depth=2, transformer_heads=8, clip_norm=1.0
    )
    updates = make_updates(given.updates, given.words)
    if given.out_of_the_box:
        compute = untouched(given.device)
        contender = peer(options, compute, tuned=False)
        measure(contender, updates[-1:], compute)
        print(measure(contender, updates, compute))
        return
    compute = choose_compute(given.device)
    sizes = sum((update.sizes for update in updates), PairSizes())
    print(
        f"{given.updates} updates, {sizes.target_tokens:,} target tokens, {1 - sizes.real / sizes.padded:.1%} padding"
    )
    contenders = [ours(options, compute), peer(options, compute, tuned=True)]
    for contender in contenders:
        measure(contender, updates[-1:], compute)
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(given.rounds):
        for contender in contenders:
            rates[contender.name].append(measure(contender, updates, compute))
        rates.setdefault("nn.Transformer, out of the box", []).append(elsewhere())
    unit = "second" if compute.device.type == "cuda" else "processor-second"
    base = statistics.median(rates["limbeck"])
    for name, found in rates.items():
        middle = statistics.median(found)
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        print(f"{name:32} {middle:8,.0f} target tokens per {unit} ({spread}); limbeck is {base / middle:.2f} times it")


if __name__ == "__main__":
    main()
