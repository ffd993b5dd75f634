"""Real Marian as the judge: it trains models that are read here, and scores models that are written here.

Needs the command `pymarian` (pip install pymarian, in an environment of its own), on the PATH or named by
LIMBECK_PYMARIAN:

    LIMBECK_PYMARIAN=/path/to/pymarian pytest -m marian
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import padded, tiny_files, tiny_model, toy_pairs

from pipeline.model.formats import marian, npz
from pipeline.model.parity import TorchEngine
from pipeline.model.vocab import Vocab

PYMARIAN = os.environ.get("LIMBECK_PYMARIAN") or shutil.which("pymarian")

pytestmark = [
    pytest.mark.marian,
    pytest.mark.skipif(not PYMARIAN, reason="no pymarian command on the PATH or in LIMBECK_PYMARIAN"),
]

SSRU = {"transformer-decoder-autoreg": "rnn", "dec-cell": "ssru"}
ARCHITECTURES = {
    "self-attention": {},
    "ssru": SSRU,
    "ssru-tied-layers": {**SSRU, "transformer-tied-layers": "1 1"},
    "untied-swish-no-bias": {
        "tied-embeddings-all": "false",
        "transformer-ffn-activation": "swish",
        "output-omit-bias": "true",
    },
}
TRAINING = {
    "type": "transformer",
    "dim-emb": "64",
    "enc-depth": "2",
    "dec-depth": "2",
    "transformer-heads": "4",
    "transformer-dim-ffn": "128",
    "transformer-ffn-activation": "relu",
    "transformer-preprocess": "",
    "transformer-postprocess": "dan",
    "tied-embeddings-all": "true",
    "after": "300u",
    "mini-batch": "64",
    "maxi-batch": "10",
    "learn-rate": "0.003",
    "lr-warmup": "60",
    "optimizer-params": "0.9 0.98 1e-09",
    "cost-type": "ce-mean-words",
    "seed": "1",
    "workspace": "256",
    "disp-freq": "100u",
    "save-freq": "1000u",
}
PAIRS = toy_pairs(100, seed=2)
SOURCES, TARGETS = ([pair[side] for pair in PAIRS] for side in (0, 1))


def pymarian(command: str, **options: str) -> str:
    arguments = [str(PYMARIAN), command, "--cpu-threads", "1", "--quiet"]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        arguments += [flag, value] if value in ("", "dan") else [flag, *value.split()]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@cache
def trained(name: str, folder: Path) -> Path:
    """A directory with a model that Marian trained."""
    directory = folder / name
    directory.mkdir()
    vocab = str(tiny_files()[1])
    for side in (0, 1):
        (directory / f"train.{side}").write_text("".join(f"{pair[side]}\n" for pair in toy_pairs(6000)))
        (directory / f"test.{side}").write_text("".join(f"{pair[side]}\n" for pair in PAIRS))
    options = {
        **TRAINING,
        **ARCHITECTURES[name],
        "model": f"{directory}/model.npz",
        "train-sets": f"{directory}/train.0 {directory}/train.1",
        "vocabs": f"{vocab} {vocab}",
    }
    pymarian("train", **options)
    return directory


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("marian")


@pytest.fixture(params=ARCHITECTURES)
def directory(request, folder):
    return trained(request.param, folder)


def marians_scores(model: Path, directory: Path) -> torch.Tensor:
    vocab = str(tiny_files()[1])
    texts = f"{directory}/test.0 {directory}/test.1"
    output = pymarian("score", model=str(model), vocabs=f"{vocab} {vocab}", train_sets=texts, mini_batch="8")
    return torch.tensor([float(line) for line in output.split()])


def our_scores(model) -> torch.Tensor:
    vocab = Vocab.load(tiny_files()[1])
    ids = [vocab.encode(side, add_eos=False) for side in (SOURCES, TARGETS)]
    return torch.tensor([sum(values) for values in TorchEngine(model).score(*ids)])


def test_log_probabilities_agree(directory):
    theirs, ours = marians_scores(directory / "model.npz", directory), our_scores(npz.load(directory / "model.npz"))
    difference = float((theirs - ours).abs().max())
    print(f"{directory.name}: sentence log-probabilities, mean {theirs.mean():.1f}, differ by at most {difference:.1e}")
    assert len(theirs) == len(ours) == 100 and theirs.mean() < -1
    assert difference <= 1e-4


def test_greedy_translations_are_identical(directory):
    vocab_path = str(tiny_files()[1])
    vocab = Vocab.load(vocab_path)
    output = pymarian(
        "decode",
        models=str(directory / "model.npz"),
        vocabs=f"{vocab_path} {vocab_path}",
        input=str(directory / "test.0"),
        beam_size="1",
        mini_batch="1",
        maxi_batch="1",
        max_length_factor="3",
    )
    ids = TorchEngine(npz.load(directory / "model.npz")).translate(vocab.encode(SOURCES, add_eos=False), 1)
    theirs, ours = output.removesuffix("\n").split("\n"), vocab.decode(ids)
    same = sum(one == two for one, two in zip(theirs, ours, strict=True))
    print(f"{directory.name}: greedy translations identical {same}/100; {len(set(ours))} different ones")
    assert same == 100
    assert len(set(ours)) > 50


def test_training_goes_on_and_marian_scores_the_result(directory):
    model = npz.load(directory / "model.npz").train()
    vocab = Vocab.load(tiny_files()[1])
    pairs = toy_pairs(256, seed=3)
    (src, src_mask), (trg, trg_mask) = (padded(vocab.encode([pair[side] for pair in pairs])) for side in (0, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    costs = []
    for _ in range(8):
        logits, _ = model(src, src_mask, trg)
        cost = torch.nn.functional.cross_entropy(logits[trg_mask], trg[trg_mask])
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        costs.append(cost.item())
    assert costs[-1] < costs[0] < 3
    npz.save(model.eval(), directory / "ours.npz")
    theirs = marians_scores(directory / "ours.npz", directory)
    difference = float((theirs - our_scores(model)).abs().max())
    print(f"{directory.name}: cost {costs[0]:.3f} to {costs[-1]:.3f}; Marian scores our npz alike to {difference:.1e}")
    assert difference <= 1e-4


def test_what_was_read_is_written_bit_by_bit(directory):
    original = npz.load_arrays(directory / "model.npz")
    npz.save(npz.load(directory / "model.npz"), directory / "again.npz", like=original)
    again = npz.load_arrays(directory / "again.npz")
    assert {name for name in original if not name.startswith("special:")} == again.keys() - {"special:model.yml"}
    for name, array in again.items():
        assert array.dtype == original[name].dtype and np.array_equal(array, original[name]), name
    assert torch.equal(
        marians_scores(directory / "again.npz", directory), marians_scores(directory / "model.npz", directory)
    )


def test_marian_reads_a_directory_written_here(folder, tmp_path):
    vocab = tiny_files()[1]
    model = tiny_model(seed=5)
    marian.save(model, tmp_path / "model", (vocab, vocab))
    (tmp_path / "sources").write_text("".join(f"{source}\n" for source in SOURCES[:5]))
    output = pymarian("decode", config=str(tmp_path / "model/decoder.yml"), input=str(tmp_path / "sources"))
    assert output.count("\n") == 5
