"""A tiny vocabulary of the toy languages and tiny models over it, made once per test run."""

import functools
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from toy_language import ToyLanguage

from pipeline.model.config import ModelConfig
from pipeline.model.formats import npz
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import Vocab
from pipeline.vocab.build import train

VOCAB_SIZE = 400
TRAINING_PAIRS = 4800


@functools.cache
def vocab_bytes() -> bytes:
    """A joint SentencePiece vocabulary of the toy languages."""
    return train((text for pair in toy_pairs(1500) for text in pair), VOCAB_SIZE, "nmt_nfkc", ())


@functools.cache
def toy_pairs(count: int, seed: int = 1) -> list[tuple[str, str]]:
    language, maker = ToyLanguage(), random.Random(seed)
    return [language.pair(maker) for _ in range(count)]


def tiny_config(**changes: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "dim_vocabs": (VOCAB_SIZE, VOCAB_SIZE),
        "dim_emb": 32,
        "enc_depth": 2,
        "dec_depth": 2,
        "transformer_heads": 4,
        "transformer_dim_ffn": 64,
    }
    return ModelConfig(**values | changes)


def tiny_model(seed: int = 1, **changes: Any) -> Transformer:
    """A random model in evaluation mode, of which everything is random, layer norms and biases too."""
    model = Transformer(tiny_config(**changes))
    model.init_parameters(seed)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.shape[0] == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=noise)
    return model.eval()


@functools.cache
def trained_model(seed: int = 1, **changes: Any) -> Transformer:
    """A model that has seen enough of the toy languages to translate different sentences differently, and to end its
    translations, in a second or two. Tests must not change it."""
    model = tiny_model(seed, **changes).train()
    vocab = tiny_vocab()
    src, src_mask = padded(vocab.encode([source for source, _ in toy_pairs(TRAINING_PAIRS)]))
    trg, trg_mask = padded(vocab.encode([target for _, target in toy_pairs(TRAINING_PAIRS)]))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batches = torch.randperm(TRAINING_PAIRS, generator=torch.Generator().manual_seed(seed)).split(64)
    for rows in batches:
        logits, _ = model(src[rows], src_mask[rows], trg[rows])
        loss = torch.nn.functional.cross_entropy(logits[trg_mask[rows]], trg[rows][trg_mask[rows]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def tiny_vocab() -> Vocab:
    return Vocab.load(tiny_files()[1])


def write_tiny(folder: Path, model: Transformer) -> tuple[Path, Path]:
    """Write model.npz and vocab.spm into a folder; returns their paths."""
    vocab = folder / "vocab.spm"
    vocab.write_bytes(vocab_bytes())
    npz.save(model, folder / "model.npz")
    return folder / "model.npz", vocab


@functools.cache
def tiny_files() -> tuple[Path, Path]:
    """model.npz of a random model and vocab.spm, in a folder that lives as long as the tests."""
    return write_tiny(_folder(), tiny_model())


@functools.cache
def trained_files() -> tuple[Path, Path]:
    """model.npz of `trained_model()` and vocab.spm, in a folder that lives as long as the tests."""
    return write_tiny(_folder(), trained_model())


def _folder() -> Path:
    _folders.append(tempfile.TemporaryDirectory(prefix="tiny-model-"))
    return Path(_folders[-1].name)


_folders: list[tempfile.TemporaryDirectory[str]] = []


def padded(ids: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask (True: real) of sentences."""
    tensors = [torch.tensor(sentence) for sentence in ids]
    matrix = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    return matrix, torch.arange(matrix.shape[1]) < torch.tensor([len(row) for row in ids])[:, None]
