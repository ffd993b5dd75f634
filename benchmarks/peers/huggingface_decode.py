"""The peer of decode.py: Hugging Face's generate, in a process of its own.

Reads a JSON object from its standard input: the architecture, source lengths in batches, and the beam. Prints processor
seconds and wall seconds. A translation ends when it is as long as its source; sources that are shorter than their
batch's longest are padded, as a tokenizer pads them.
"""

import json
import sys
import time

import torch
from transformers import LogitsProcessor, LogitsProcessorList, MarianConfig, MarianMTModel


class EndAfter(LogitsProcessor):
    """Forces the end of sentence on translations that have reached their lengths."""

    def __init__(self, lengths, beam, eos):
        self.lengths, self.eos = torch.tensor(lengths).repeat_interleave(beam), eos

    def __call__(self, input_ids, scores):
        # The first input is the decoder's start symbol.
        due = self.lengths <= input_ids.shape[1]
        scores[:, self.eos] = -torch.inf
        if due.any():
            scores[due] = -torch.inf
            scores[due, self.eos] = 0
        return scores


def main():
    given = json.load(sys.stdin)
    torch.set_num_threads(given["threads"])
    torch.manual_seed(1)
    eos, pad = 0, given["vocab"] - 1
    config = MarianConfig(
        vocab_size=given["vocab"],
        d_model=given["width"],
        encoder_layers=given["encoder_layers"],
        decoder_layers=given["decoder_layers"],
        encoder_attention_heads=given["heads"],
        decoder_attention_heads=given["heads"],
        encoder_ffn_dim=given["ffn"],
        decoder_ffn_dim=given["ffn"],
        activation_function="relu",
        scale_embedding=True,
        eos_token_id=eos,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        forced_eos_token_id=None,
        max_position_embeddings=512,
    )
    model = MarianMTModel(config).eval()
    batches = []
    for lengths in given["batches"]:
        ids = torch.full((len(lengths), max(lengths)), pad)
        for row, length in zip(ids, lengths, strict=True):
            row[:length] = torch.randint(2, pad, (length,))
            row[length - 1] = eos
        batches.append((ids, lengths))

    def translate(chosen):
        for ids, lengths in chosen:
            found = model.generate(
                ids,
                attention_mask=ids != pad,
                num_beams=given["beam"],
                do_sample=False,
                max_new_tokens=max(lengths) + 1,
                logits_processor=LogitsProcessorList([EndAfter(lengths, given["beam"], eos)]),
            )
            pieces = ((found != pad) & (found != eos)).sum(1) + 1
            if pieces.tolist() != lengths:
                raise SystemExit("generate did not end translations where it was told to")

    translate(batches[:1])
    wall, cpu = time.perf_counter(), time.process_time()
    translate(batches)
    print(time.process_time() - cpu, time.perf_counter() - wall)


if __name__ == "__main__":
    main()
