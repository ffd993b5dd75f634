"""A tiny model with random weights, its vocabulary, and a small test set."""

from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece
from reports import Report, report_maker

from pipeline.common.files import write_lines
from pipeline.model.config import ModelConfig
from pipeline.model.formats import ctranslate2, npz
from pipeline.model.transformer import Transformer

SOURCES = [
    "The house is small.",
    "She reads a long book about old houses in the city.",
    "",
    "Books!",
    "He buys a house and a book; she buys neither of them.",
    "A <b>small</b> city & an old river",
]
REFERENCES = [
    "Das Haus ist klein.",
    "Sie liest ein langes Buch über alte Häuser in der Stadt.",
    "",
    "Bücher!",
    "Er kauft ein Haus und ein Buch; sie kauft keins davon.",
    "Eine <b>kleine</b> Stadt & ein alter Fluss",
]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two model.npz of one shape, one with a recurrent decoder, an 8-bit directory of the first, their vocabulary."""
    folder = tmp_path_factory.mktemp("models")
    text = folder / "text"
    text.write_text("\n".join([*SOURCES, *REFERENCES] * 3), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "vocab"),
        vocab_size=96,
        hard_vocab_limit=False,
        bos_id=-1,
        pad_id=-1,
        eos_id=0,
        unk_id=1,
        minloglevel=2,
    )
    vocab = folder / "vocab.model"
    size = sentencepiece.SentencePieceProcessor(model_file=str(vocab)).get_piece_size()
    config = ModelConfig(
        dim_vocabs=(size, size), dim_emb=16, enc_depth=1, dec_depth=1, transformer_heads=2, transformer_dim_ffn=32
    )
    paths = [folder / "first.npz", folder / "second.npz"]
    for seed, path in enumerate(paths, start=1):
        model = Transformer(config)
        model.init_parameters(seed)
        npz.save(model, path)
    ctranslate2.save(npz.load(paths[0]), folder / "int8", (vocab, vocab), "int8")
    recurrent = Transformer(replace(config, transformer_decoder_autoreg="rnn", dec_cell="ssru"))
    recurrent.init_parameters(3)
    npz.save(recurrent, folder / "recurrent.npz")
    return {
        "first": paths[0],
        "second": paths[1],
        "recurrent": folder / "recurrent.npz",
        "int8": folder / "int8",
        "vocab": vocab,
    }


@pytest.fixture
def test_set(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "test.en.zst", tmp_path / "test.de.zst"
    for path, lines in zip(paths, (SOURCES, REFERENCES), strict=True):
        with write_lines(path) as writer:
            for line in lines:
                writer.write(line)
    return paths


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Runs the report's step on figures given as values, and returns its JSON, its parsed page and its text."""
    return report_maker(tmp_path)
