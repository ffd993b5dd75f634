"""Directories as OPUS-MT publishes them: two SentencePiece models that only segment, and a joint list of pieces."""

import io
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
import yaml
from tiny_model import tiny_config, toy_pairs

from pipeline.model.formats import npz
from pipeline.model.transformer import Transformer

TAGS = (">>deu<<", ">>zho_Hans<<")
MISSING = 3  # pieces of each SentencePiece model that the list lacks


@dataclass(frozen=True)
class OpusModel:
    """The directory, and what an independent reader would make of it."""

    path: Path
    listed: list[str]  # by row, as in the file
    processors: tuple[sentencepiece.SentencePieceProcessor, sentencepiece.SentencePieceProcessor]
    model: Transformer  # with the rows of the list

    def marians_ids(self, side: int, text: str) -> list[int]:
        """What Marian reads of segmented text: pieces looked up in the list, a tag before them."""
        rows = {piece: row for row, piece in enumerate(self.listed)}
        tag, _, rest = text.partition(" ") if text.startswith(">>") else ("", "", text)
        pieces = [tag] * bool(tag) + self.processors[side].encode(rest, out_type=str)
        return [rows.get(piece, rows["<unk>"]) for piece in pieces]


def write_opus_model(folder: Path, eos_first: bool = True, **changes: object) -> OpusModel:
    """Train SentencePiece models with their default ids on each side, list their pieces in an order of its own, and
    write random weights for that list."""
    folder.mkdir(parents=True, exist_ok=True)
    processors = []
    for side, name in enumerate(("source.spm", "target.spm")):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([pair[side] for pair in toy_pairs(1500)]),
            model_writer=model,
            vocab_size=120,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (folder / name).write_bytes(model.getvalue())
        processors.append(sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()))
    maker = random.Random(1)
    sides = [[processor.id_to_piece(i) for i in range(3, len(processor))] for processor in processors]
    dropped = {piece for side in sides for piece in maker.sample([p for p in side if len(p) > 2], MISSING)}
    pieces = sorted({piece for side in sides for piece in side} - dropped)
    maker.shuffle(pieces)
    special = ["</s>", "<unk>"]
    # `no` and `1` are no texts to a YAML reader that guesses types.
    listed = [*special, *pieces, "no", "1", *TAGS] if eos_first else [*pieces, *TAGS, "<unk>", "no", "</s>"]
    (folder / "opus.spm32k-spm32k.vocab.yml").write_text(
        yaml.safe_dump({piece: row for row, piece in enumerate(listed)}, allow_unicode=True, sort_keys=False)
    )
    model = Transformer(tiny_config(dim_vocabs=(len(listed), len(listed)), **changes))
    model.init_parameters(3)
    weights = "opus.spm32k-spm32k.transformer-align.model1.npz.best-perplexity.npz"
    npz.save(model, folder / weights)
    # As Marian 1.12 writes it: several NULs.
    arrays = npz.load_arrays(folder / weights)
    arrays["special:model.yml"] = np.concatenate([arrays["special:model.yml"], np.zeros(3, np.int8)])
    np.savez(folder / weights, **arrays)
    vocab = "/scratch/somebody/opus.spm32k-spm32k.vocab.yml"
    decoder = {"models": [f"/scratch/somebody/{weights}"], "vocabs": [vocab, vocab], "beam-size": 6, "normalize": 1}
    (folder / "decoder.yml").write_text(yaml.safe_dump(decoder))
    (folder / "README.md").write_text("# opus-2020-02-26\n")
    return OpusModel(folder, listed, (processors[0], processors[1]), model.eval())
