"""Speed of translating, with a tiny student of random weights (6+2 layers, width 256, 8000 pieces).

1. The torch search beside Hugging Face's generate: float32, the same architecture, the same batches of 32 sentences, a
   translation ends when it is as long as its source. Once all sources have 24 pieces; once their lengths are spread
   like those of real text, in batches as they come and in batches of like lengths. The peer runs in a process of its
   own, with the Python given by --peer-python (default: LIMBECK_PEERS, or this one) if that has transformers. With
   --bfloat16 our side is also timed in bfloat16.
2. The translate step's own choice of batch size and threads beside the best that CTranslate2 reaches on this machine
   over batch sizes of 8, 16, 32 and 64 and both ways of using two processors.

Rounds are interleaved, and figures are the best of them: a busy machine only ever adds. Rates are source pieces per
second of processor time, and for two processors also of wall time.
"""

import argparse
import functools
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import ctranslate2
import numpy as np
import torch

from pipeline.common.progress import Progress
from pipeline.model import search
from pipeline.model.config import ModelConfig
from pipeline.model.decoding import DecodingOptions
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.formats import npz
from pipeline.model.inference import InferenceModel
from pipeline.model.search import beam_search, longest_translation
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import EOS_ID, Vocab
from pipeline.translate.engines import make_engine
from pipeline.translate.translate import translate_block
from pipeline.vocab.build import train

VOCAB, BATCH = 8000, 32
FACTOR = 1.0  # translations are as long as their sources
PEER = Path(__file__).parent / "peers" / "huggingface_decode.py"
EXAMPLE = """example:
  python benchmarks/decode.py --peer-python /path/to/venv/with/transformers/bin/python
"""

Lengths = list[list[int]]  # of the sources of each batch
Seconds = tuple[float, float]  # of processors, of wall time


def student() -> Transformer:
    config = ModelConfig(
        dim_vocabs=(VOCAB, VOCAB),
        dim_emb=256,
        enc_depth=6,
        dec_depth=2,
        transformer_heads=8,
        transformer_dim_ffn=1536,
    )
    model = Transformer(config)
    model.init_parameters(1)
    with torch.no_grad():
        model.decoder_ff_logit_out_b[0, EOS_ID] = -1e4  # ends where it is told to, and nowhere else
    return model.eval()


def spread_lengths(sentences: int) -> list[int]:
    """Log-normal, with a mean of 24 pieces, as in mixed English and German text."""
    drawn = np.random.default_rng(1).lognormal(3.0, 0.6, sentences)
    return np.clip(np.rint(drawn), 3, 100).astype(int).tolist()  # type: ignore[no-any-return]


def in_batches(lengths: list[int]) -> Lengths:
    return [lengths[start : start + BATCH] for start in range(0, len(lengths), BATCH)]


def timed(work: Callable[[], None]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def best(rounds: Sequence[Seconds]) -> Seconds:
    return min(cpu for cpu, _ in rounds), min(wall for _, wall in rounds)


def make_sources(batches: Lengths) -> list[tuple[torch.Tensor, torch.Tensor]]:
    maker, made = torch.Generator().manual_seed(1), []
    for lengths in batches:
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        ids = torch.randint(2, VOCAB, mask.shape, generator=maker)
        ids[range(len(lengths)), [length - 1 for length in lengths]] = EOS_ID
        made.append((ids * mask, mask))
    return made


def our_search(model: InferenceModel, batches: Lengths, beam: int) -> Callable[[], None]:
    sources = make_sources(batches)

    def work() -> None:
        for ids, mask in sources:
            found = beam_search([model], ids, mask, beam, max_length_factor=FACTOR)
            if [len(hypotheses[0].ids) for hypotheses in found] != mask.sum(1).tolist():
                raise SystemExit("the search did not end translations where it was told to")

    return work


def run_peer(python: str, batches: Lengths, beam: int, threads: int) -> Seconds:
    """One round of generate, after a batch to warm up."""
    model = {"vocab": VOCAB, "width": 256, "encoder_layers": 6, "decoder_layers": 2, "heads": 8, "ffn": 1536}
    task = json.dumps(model | {"batches": batches, "beam": beam, "threads": threads})
    process = subprocess.run([python, str(PEER)], input=task, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{PEER.name} failed:\n{process.stderr}")
    cpu, wall = map(float, process.stdout.split())
    return cpu, wall


def compare_with_generate(given: argparse.Namespace) -> None:
    command = [
        given.peer_python,
        "-c",
        "import transformers, torch; print(transformers.__version__, torch.__version__)",
    ]
    versions = subprocess.run(command, capture_output=True, text=True, check=False)
    if versions.returncode:
        print(f"transformers is missing from {given.peer_python}: no comparison with Hugging Face's generate")
        return
    print(f"transformers and torch of the peer: {versions.stdout.strip()}; ours: {torch.__version__}")
    model = student()
    contenders = {"float32": InferenceModel(model)}
    if given.bfloat16:
        contenders["bfloat16"] = InferenceModel(model, torch.bfloat16)
    spread = spread_lengths(given.batches * BATCH)
    cases = {
        "24 pieces each": in_batches([24] * given.batches * BATCH),
        "spread, as they come": in_batches(spread),
        "spread, like lengths together": in_batches(sorted(spread, reverse=True)),
    }
    for name, batches in cases.items():
        pieces = sum(map(sum, batches))
        for beam in given.beam:
            works = {kind: our_search(contender, batches, beam) for kind, contender in contenders.items()}
            rounds: dict[str, list[Seconds]] = {kind: [] for kind in (*works, "peer")}
            for work in works.values():
                work()
            for _ in range(given.rounds):
                for kind, work in works.items():
                    rounds[kind].append(timed(work))
                rounds["peer"].append(run_peer(given.peer_python, batches, beam, given.threads))
            theirs = best(rounds["peer"])
            for kind in works:
                ours = best(rounds[kind])
                print(
                    f"{name}, beam {beam}: torch search {kind} {pieces / ours[0]:,.0f} pieces/s, generate "
                    f"{pieces / theirs[0]:,.0f}; {theirs[0] / ours[0]:.2f} times it (wall: {theirs[1] / ours[1]:.2f})"
                )


def write_vocab(path: Path) -> None:
    """A SentencePiece vocabulary of made-up words: what a sentence says does not matter here."""
    maker = np.random.default_rng(3)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(maker.choice(letters, size)) for size in maker.integers(2, 9, 40_000)]
    lines = (" ".join(words[start : start + 10]) for start in range(0, len(words), 10))
    path.write_bytes(train(lines, VOCAB, "identity", ()))


def sweep(directory: Path, batches: list[list[list[str]]], inter: int, intra: int, beam: int) -> Callable[[], None]:
    """CTranslate2 by itself, fed with pieces in batches."""
    translator = ctranslate2.Translator(str(directory), inter_threads=inter, intra_threads=intra)

    def work() -> None:
        waiting = [
            translator.translate_batch(
                batch,
                beam_size=beam,
                max_input_length=0,
                max_decoding_length=longest_translation(len(batch[0]) + 1, FACTOR),
                disable_unk=True,
                return_scores=True,
                asynchronous=True,
            )
            for batch in batches
        ]
        for handle in (handle for handles in waiting for handle in handles):
            handle.result()

    return work


def compare_with_ctranslate2(given: argparse.Namespace) -> None:
    os.environ["LIMBECK_CPUS"] = "2"
    # In groups of one length: batches of all sizes then have the same work to do.
    lengths = np.repeat(sorted(spread_lengths(given.groups), reverse=True), 64).tolist()
    maker = np.random.default_rng(2)
    sources = [maker.integers(2, VOCAB, length - 1).tolist() for length in lengths]
    count = sum(lengths)
    print(f"\nThe translate step and CTranslate2 by itself: {len(lengths)} sentences, {count:,} pieces, 2 processors")
    with tempfile.TemporaryDirectory() as folder:
        model, vocab_path = student(), Path(folder) / "vocab.spm"
        npz.save(model, Path(folder) / "model.npz")
        write_vocab(vocab_path)
        vocab = Vocab.load(vocab_path)
        texts = [[vocab.all_pieces[number] for number in source] for source in sources]
        for precision in given.precision:
            directory = Path(folder) / precision
            ctranslate2_format.save(model, directory, (vocab_path, vocab_path), precision)
            for beam in given.beam:
                options = DecodingOptions(beam_size=beam, precision=precision, max_length_factor=FACTOR)
                engine = make_engine([Path(folder) / "model.npz"], (vocab_path, vocab_path), (vocab, vocab), options, 1)
                ours = functools.partial(translate_block, engine, sources, options, Progress("", "sentences"))
                contenders: dict[str, Callable[[], object]] = {"ours": ours}
                for inter, intra in ((1, 2), (2, 1)):
                    for size in (8, 16, 32, 64):
                        batches = [texts[start : start + size] for start in range(0, len(texts), size)]
                        name = f"batches of {size}, inter {inter}, intra {intra}"
                        contenders[name] = sweep(directory, batches, inter, intra, beam)
                report(f"{precision}, beam {beam} ({engine.description})", contenders, count, given.rounds)


def report(title: str, contenders: dict[str, Callable[[], object]], pieces: int, rounds: int) -> None:
    times: dict[str, list[Seconds]] = {name: [] for name in contenders}
    for work in contenders.values():
        work()
    for _ in range(rounds):
        for name, work in contenders.items():
            times[name].append(timed(work))
    print(title)
    middle = {name: best(found) for name, found in times.items()}
    for name, (cpu, wall) in sorted(middle.items(), key=lambda item: item[1][0]):
        print(f"  {name:32} {pieces / cpu:8,.0f} pieces per processor-second, {pieces / wall:8,.0f} per second")
    for place, clock in enumerate(("processor", "wall")):
        fastest = min(value[place] for name, value in middle.items() if name != "ours")
        print(f"  ours takes {middle['ours'][place] / fastest:.3f} times the {clock} time of CTranslate2's best")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer-python",
        default=os.environ.get("LIMBECK_PEERS") or sys.executable,
        help="a Python with torch and transformers (default: LIMBECK_PEERS, or this one)",
    )
    parser.add_argument("--part", choices=["search", "step", "both"], default="both", help="what to measure")
    parser.add_argument("--beam", type=int, nargs="+", default=[1, 4], help="beam sizes (default: 1 4)")
    parser.add_argument("--precision", nargs="+", default=["float32", "int8"], help="of the step (default: both)")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each contender (default: 3)")
    parser.add_argument("--batches", type=int, default=8, help="batches of 32 for the search (default: 8)")
    parser.add_argument("--groups", type=int, default=8, help="groups of 64 sentences for the step (default: 8)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch for the search (default: 1)")
    parser.add_argument("--bfloat16", action="store_true", help="time the search in bfloat16, too")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(given.threads)
    search.LENGTH_SLACK = 0
    if given.part != "step":
        compare_with_generate(given)
    if given.part != "search":
        compare_with_ctranslate2(given)


if __name__ == "__main__":
    main()
