"""A plain training loop over MarianMTModel, as tutorials have it, on batches that are ready.

Without reading, encoding and batching: our trainer does these too, the loop does not.
"""

import contextlib

import numpy as np
import sentencepiece
import torch
from torch.nn import functional

from peers.huggingface_model import PAD, make_model
from peers.tasks import Stopwatch, task_of_command_line


def main() -> None:
    task = task_of_command_line()
    torch.set_num_threads(task.threads)
    torch.manual_seed(1)
    vocab = sentencepiece.SentencePieceProcessor(model_file=task.vocab).get_piece_size()
    model = make_model(task.architecture, vocab, task.dropout, "eager" if task.tuned else None)
    adam = {"lr": task.learn_rate, "betas": (0.9, 0.98), "eps": 1e-9, **({"fused": True} if task.tuned else {})}
    optimizer = torch.optim.Adam(model.parameters(), **adam)
    stored = np.load(task.batches)
    batches = [
        [torch.from_numpy(stored[f"{name}_{number}"]) for name in ("src", "src_mask", "trg", "trg_mask")]
        for number in range(len(stored) // 4)
    ]

    watch, done, number = Stopwatch(task.warm_up, task.updates), False, 0
    while not done:
        src, src_mask, trg, trg_mask = batches[number % len(batches)]
        number += 1
        read = functional.pad(trg[:, :-1], (1, 0), value=PAD)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if task.tuned else contextlib.nullcontext():
            logits = model(
                input_ids=src.masked_fill(~src_mask, PAD),
                attention_mask=src_mask.long(),
                decoder_input_ids=read,
                use_cache=False,
            ).logits
        loss = functional.cross_entropy(
            logits.float().view(-1, vocab),
            trg.masked_fill(~trg_mask, -100).view(-1),
            label_smoothing=task.label_smoothing,
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), task.clip_norm)
        optimizer.step()
        loss.item()
        done = watch.update(int(trg_mask.sum()))


if __name__ == "__main__":
    main()
