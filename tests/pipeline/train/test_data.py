import itertools
import pickle
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
import yaml

from pipeline.common.augment.augmenter import NO_AUGMENTATION, Augmentation, Augmenter
from pipeline.common.errors import UserError
from pipeline.train import mixture
from pipeline.train.curriculum import Stage, curriculum
from pipeline.train.data import TrainingData, Update, in_background, open_corpora
from pipeline.train.encoded import EncodedCorpus
from pipeline.train.encoding import EncodedRows, Encoder
from pipeline.train.mixture import DataPosition
from pipeline.train.options import TrainingOptions
from pipeline.train.shuffle import TextCorpus
from pipeline.train.workers import EncodingWorkers

from .conftest import Files, make_pairs, train_vocab, write_rows


def make_data(
    folder: Path,
    corpora: dict[str, tuple[Path, ...]],
    vocabs: tuple[Path, Path],
    stages: list[Stage] | None = None,
    process: tuple[int, int] = (0, 1),
    exchange: Callable[[Any], list[Any]] | None = None,
    workers: int = 0,
    augmentation: Augmentation = NO_AUGMENTATION,
    **options: object,
) -> TrainingData:
    chosen = TrainingOptions(**{"mini_batch_words": 400, "maxi_batch": 30, "max_length": 60, **options})  # type: ignore[arg-type]
    processors = tuple(sentencepiece.SentencePieceProcessor(model_file=str(vocab)) for vocab in vocabs)
    encoder = Encoder(
        processors,  # type: ignore[arg-type]
        chosen.sentencepiece_alphas,
        chosen.max_length,
        chosen.max_length_crop,
        chosen.guided_alignment,
        Augmenter(augmentation, ("en", "de")),
    )
    encoding = EncodingWorkers(encoder, workers)
    read = open_corpora(corpora, folder, 1, encoding)
    return TrainingData(read, stages or curriculum(list(corpora)), encoding, chosen, process, exchange)


def first_updates(data: TrainingData, count: int, position: DataPosition | None = None) -> list[Update]:
    updates = data.updates(position or DataPosition())
    try:
        return list(itertools.islice(updates, count))
    finally:
        updates.close()


def same(one: Update, other: Update) -> bool:
    if (one.sizes, one.epochs, one.position) != (other.sizes, other.epochs, other.position):
        return False
    for a, b in zip(one.batches, other.batches, strict=True):
        tensors = [(a.src, b.src), (a.src_mask, b.src_mask), (a.trg, b.trg), (a.trg_mask, b.trg_mask)]
        if a.alignment and b.alignment:
            tensors += [(a.alignment.index, b.alignment.index), (a.alignment.weight, b.alignment.weight)]
        if not all(torch.equal(x, y) for x, y in tensors):
            return False
    return True


OFTEN = Augmentation(upper_case=0.2, title_case=0.2, remove_end_punct=0.2, typos=0.3, noise=0.1, tags=0.05)


@pytest.mark.parametrize(
    ("alphas", "augmentation"), [((), NO_AUGMENTATION), ((0.3, 0.3), NO_AUGMENTATION), ((0.3,), OFTEN)]
)
def test_a_stream_goes_on_exactly_behind_any_update(
    tmp_path: Path, files: Files, alphas: tuple[float, ...], augmentation: Augmentation
) -> None:
    options: dict[str, Any] = {"sentencepiece_alphas": alphas, "guided_alignment": True, "optimizer_delay": 2}
    options["augmentation"] = augmentation
    data = make_data(tmp_path, {"distilled": files.corpus}, files.vocabs, **options)
    straight = first_updates(data, 110)
    assert straight[-1].epochs > 1
    for start, workers in ((1, 0), (16, 0), (100, 2)):
        again = make_data(tmp_path, {"distilled": files.corpus}, files.vocabs, workers=workers, **options)
        position = DataPosition.from_yaml(yaml.safe_load(yaml.safe_dump(straight[start - 1].position.to_yaml())))
        resumed = first_updates(again, 110 - start, position)
        assert all(same(a, b) for a, b in zip(straight[start:], resumed, strict=True))


def test_a_stream_goes_on_in_any_stage(tmp_path: Path) -> None:
    corpora, vocabs = marked_corpora(tmp_path, {"original": 700, "backtranslated": 300})
    stages = [
        Stage({"original": 0.5, "backtranslated": 0.5}, ("backtranslated", 1)),
        Stage({"backtranslated": 1.0}, ("backtranslated", 2)),
        Stage({"original": 0.2, "backtranslated": 0.8}, ("original", 1)),
        Stage({"original": 1.0}),
    ]

    def data() -> TrainingData:
        return make_data(tmp_path / "x", corpora, vocabs, stages, augmentation=OFTEN, maxi_batch=4)

    straight = first_updates(data(), 180)
    shares = {
        stage: share_of([update for update in straight if update.position.stage == stage], vocabs[1], "bbb")
        for stage in range(4)
    }
    assert shares[3] == 0 and shares[0] < shares[2] < shares[1]
    assert len({(update.position.stage, update.position.pool) for update in straight}) > 8
    firsts = [next(n for n, update in enumerate(straight) if update.position.stage == stage) for stage in (1, 2, 3)]
    for start in (5, *firsts, *(first + 1 for first in firsts), 170):
        resumed = first_updates(data(), 180 - start, straight[start - 1].position)
        assert all(same(a, b) for a, b in zip(straight[start:], resumed, strict=True))


def test_text_that_is_encoded_once_comes_as_text_that_is_encoded_each_time(tmp_path: Path, files: Files) -> None:
    corpora = {"distilled": files.corpus, "original": files.corpus}
    stages = [Stage({"distilled": 0.7, "original": 0.3})]
    once = make_data(tmp_path / "a", corpora, files.vocabs, stages, guided_alignment=True, max_length=12)
    never = Augmentation(upper_case=1e-300)
    each = make_data(
        tmp_path / "b", corpora, files.vocabs, stages, guided_alignment=True, max_length=12, augmentation=never
    )
    assert isinstance(once.corpora[0], EncodedCorpus) and isinstance(each.corpora[0], TextCorpus)
    for one, other in zip(first_updates(once, 80), first_updates(each, 80), strict=True):
        assert same(one, other)


def test_text_is_encoded_once_for_all_starts(tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode_rows = Encoder.encode_rows

    def counting(self: Encoder, rows: list[Any], seed: tuple[int, ...]) -> EncodedRows:
        encoded.append(len(rows))
        return encode_rows(self, rows, seed)

    monkeypatch.setattr(Encoder, "encode_rows", counting)
    paths = write_rows(make_pairs(300, 7), tmp_path / "c.en.zst", tmp_path / "c.de.zst")
    first = first_updates(make_data(tmp_path / "x", {"c": paths}, files.vocabs), 5)
    assert sum(encoded) == 300
    again = first_updates(make_data(tmp_path / "x", {"c": paths}, files.vocabs), 5)
    assert sum(encoded) == 300 and all(same(a, b) for a, b in zip(first, again, strict=True))
    # Other lengths, other files and a start that was cut short are encoded anew.
    make_data(tmp_path / "x", {"c": paths}, files.vocabs, max_length=50)
    write_rows(make_pairs(200, 8), *paths)
    data = make_data(tmp_path / "x", {"c": paths}, files.vocabs, max_length=50)
    assert encoded == [300, 300, 200] and data.corpora[0].rows == 200
    (tmp_path / "x" / "c.encoded" / "index.json").unlink()
    make_data(tmp_path / "x", {"c": paths}, files.vocabs, max_length=50)
    assert encoded == [300, 300, 200, 200]
    data.remove_copies()
    assert not list((tmp_path / "x").iterdir())


class Exchange:
    """What torch's collective does, for two threads of this process."""

    def __init__(self) -> None:
        self.given: dict[int, object] = {}
        self.barrier = threading.Barrier(2, timeout=20)
        self.calls = 0

    def of(self, rank: int) -> Callable[[object], list[object]]:
        def exchange(item: object) -> list[object]:
            self.given[rank] = pickle.dumps(item)
            self.barrier.wait()
            items = [pickle.loads(self.given[other]) for other in (0, 1)]  # type: ignore[arg-type]
            self.calls += rank
            self.barrier.wait()
            return items

        return exchange


@pytest.mark.parametrize("count", [1, 25])
def test_processes_encode_a_part_each(tmp_path: Path, files: Files, count: int) -> None:
    options: dict[str, Any] = {"sentencepiece_alphas": (0.3, 0.3), "augmentation": OFTEN, "guided_alignment": True}

    def data(rank: int, exchange: Exchange | None) -> TrainingData:
        return make_data(
            tmp_path / str(rank), {"d": files.corpus}, files.vocabs, None, (rank, 2),
            exchange.of(rank) if exchange else None, **options,
        )  # fmt: skip

    exchange = Exchange()
    sharing = [data(rank, exchange) for rank in (0, 1)]
    begun = time.monotonic()
    with ThreadPoolExecutor(2) as threads:
        shared = list(threads.map(lambda one: first_updates(one, count), sharing))
    assert time.monotonic() - begun < 15 and not exchange.barrier.broken
    for rank in (0, 1):
        assert all(same(a, b) for a, b in zip(first_updates(data(rank, None), count), shared[rank], strict=True))


def test_what_one_process_cannot_encode_stops_all(tmp_path: Path, files: Files) -> None:
    rows = make_pairs(2000, 1)
    rows[700] = (*rows[700][:2], "0-99")
    corpus = write_rows(rows, tmp_path / "c.en.zst", tmp_path / "c.de.zst", tmp_path / "c.aln.zst")
    exchange = Exchange()

    def train(rank: int) -> str:
        data = make_data(
            tmp_path / str(rank), {"d": corpus}, files.vocabs, None, (rank, 2), exchange.of(rank),
            sentencepiece_alphas=(0.3,), guided_alignment=True,
        )  # fmt: skip
        with pytest.raises(UserError) as refused:
            first_updates(data, 100)
        return str(refused.value)

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(train, (0, 1))
    assert one == other and "0-99 lies outside" in one


def test_closing_does_not_wait_for_a_whole_pool(tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    encode_rows = Encoder.encode_rows

    def slowly(self: Encoder, rows: list[Any], seed: tuple[int, ...]) -> EncodedRows:
        time.sleep(0.05)
        return encode_rows(self, rows, seed)

    data = make_data(
        tmp_path, {"d": files.corpus[:2]}, files.vocabs, sentencepiece_alphas=(0.3,), mini_batch_words=20000,
        maxi_batch=1000, after_epochs=1,
    )  # fmt: skip
    monkeypatch.setattr(Encoder, "encode_rows", slowly)
    monkeypatch.setattr(mixture, "_CHUNK_ROWS", 16)
    updates = data.updates(DataPosition())
    threading.Timer(0.5, data._stopped.set).start()  # what closing does first
    begun = time.monotonic()
    assert list(updates) == []
    assert time.monotonic() - begun < 2.5  # all chunks of an epoch take more than 6 seconds


def test_an_epoch_ends_with_a_pool_and_holds_every_pair(tmp_path: Path, files: Files) -> None:
    data = make_data(tmp_path, {"original": files.corpus[:2]}, files.vocabs, optimizer_delay=3)
    updates = first_updates(data, 400)
    for epoch in (1, 2):
        inside = [update for update in updates if epoch - 1 < update.epochs <= epoch]
        assert inside[-1].epochs == epoch
        assert sum(len(batch.src) for update in inside for batch in update.batches) == 2000
        assert max(len(update.batches) for update in inside) == 3
    sizes = [update.sizes for update in updates if update.epochs <= 2]
    assert all(size.padded <= 2 * 400 for size in sizes)
    assert 1 - sum(size.real for size in sizes) / sum(size.padded for size in sizes) < 0.08


@pytest.mark.parametrize(("delay", "processes"), [(1, 2), (4, 2), (4, 3), (1, 12)])
def test_processes_share_the_pairs_of_one(tmp_path: Path, files: Files, delay: int, processes: int) -> None:
    def updates_of(process: tuple[int, int]) -> list[Update]:
        data = make_data(
            tmp_path / str(process),
            {"d": files.corpus[:2]},
            files.vocabs,
            None,
            process,
            optimizer_delay=delay,
            max_length=20,
            mini_batch_words=160,
        )
        return first_updates(data, 40)

    def pairs(updates: Iterable[Update]) -> list[tuple[list[int], list[int]]]:
        batches = [batch for update in updates for batch in update.batches]
        return sorted(
            (src[src_mask].tolist(), trg[trg_mask].tolist())
            for batch in batches
            for src, src_mask, trg, trg_mask in zip(batch.src, batch.src_mask, batch.trg, batch.trg_mask, strict=True)
        )

    alone = updates_of((0, 1))
    shared = [updates_of((rank, processes)) for rank in range(processes)]
    for whole, *parts in zip(alone, *shared, strict=True):
        assert pairs([whole]) == pairs(parts)
        for part in parts:
            assert (part.sizes, part.position, part.epochs) == (whole.sizes, whole.position, whole.epochs)
            assert all(len(batch.src) for batch in part.batches)
        if len(whole.batches) % processes == 0:
            assert len({len(part.batches) for part in parts}) == 1


def test_sampling_varies_between_epochs(tmp_path: Path, files: Files) -> None:
    plain, sampled = (
        make_data(tmp_path / str(alpha), {"original": files.corpus[:2]}, files.vocabs, sentencepiece_alphas=(alpha,))
        for alpha in (0.0, 0.2)
    )
    tokens = [
        sum(update.sizes.real for update in first_updates(data, 400) if update.epochs <= 1) for data in (plain, sampled)
    ]
    assert tokens[1] > tokens[0]


def marked_corpora(folder: Path, counts: dict[str, int]) -> tuple[dict[str, tuple[Path, ...]], tuple[Path, Path]]:
    """Corpora whose target sides tell them apart."""
    marks = {"original": "ooo", "backtranslated": "bbb"}
    corpora = {}
    for name, count in counts.items():
        rows = [(source, marks[name]) for source, _, _ in make_pairs(count, 5, longest=3)]
        corpora[name] = write_rows(rows, folder / f"{name}.en.zst", folder / f"{name}.de.zst")
    texts = [row[0] for row in make_pairs(300, 5)]
    vocabs = (
        train_vocab(texts, folder / "vocab.en.spm"),
        train_vocab([*texts, "ooo", "bbb"], folder / "vocab.de.spm"),
    )
    return corpora, vocabs


def share_of(updates: list[Update], vocab: Path, mark: str) -> float:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(vocab))
    wanted = [*processor.encode(mark), 0]
    targets = [
        row[mask].tolist()
        for update in updates
        for batch in update.batches
        for row, mask in zip(batch.trg, batch.trg_mask, strict=True)
    ]
    return targets.count(wanted) / len(targets)


def test_one_stage_mixes_by_weight(tmp_path: Path) -> None:
    corpora, vocabs = marked_corpora(tmp_path, {"original": 1000, "backtranslated": 300})
    data = make_data(tmp_path / "x", corpora, vocabs)
    updates = [update for update in first_updates(data, 200) if update.epochs <= 2]
    assert share_of(updates, vocabs[1], "bbb") == pytest.approx(0.3, abs=0.01)


def test_two_stages_leave_the_backtranslations_behind(tmp_path: Path) -> None:
    corpora, vocabs = marked_corpora(tmp_path, {"original": 1000, "backtranslated": 300})
    data = make_data(tmp_path / "x", corpora, vocabs, curriculum(list(corpora), "two-stage"))
    updates = first_updates(data, 300)
    first = [update for update in updates if update.position.stage == 0]
    second = [update for update in updates if update.position.stage == 1]
    assert share_of(first, vocabs[1], "bbb") == pytest.approx(0.4, abs=0.01)
    rows = sum(len(batch.src) for update in first for batch in update.batches)
    assert 0.4 * rows == pytest.approx(600, abs=2)
    assert share_of(second, vocabs[1], "bbb") == 0


def test_long_pairs_are_left_out_or_cut(tmp_path: Path, files: Files, caplog: pytest.LogCaptureFixture) -> None:
    options = {"guided_alignment": True, "max_length": 5, "mini_batch_words": 2000}
    with caplog.at_level("INFO"):
        left_out = make_data(tmp_path / "a", {"original": files.corpus}, files.vocabs, **options)
        kept = [update for update in first_updates(left_out, 40) if update.epochs <= 1]
    assert "longer than 5 pieces" in caplog.text
    cut = make_data(tmp_path / "b", {"original": files.corpus}, files.vocabs, max_length_crop=True, **options)
    whole = [update for update in first_updates(cut, 40) if update.epochs <= 1]
    count = lambda updates: sum(len(batch.src) for update in updates for batch in update.batches)  # noqa: E731
    assert count(kept) < 2000 == count(whole)
    for batch in (batch for update in kept + whole for batch in update.batches):
        assert batch.src.shape[1] <= 6 and batch.trg.shape[1] <= 6
        last = batch.trg_mask.sum(1) - 1
        assert (batch.trg[torch.arange(len(last)), last] == 0).all()


def test_a_corpus_without_usable_pairs_is_refused(tmp_path: Path, files: Files) -> None:
    rows = [(source, target) for source, target, _ in make_pairs(700, 3) if " " in source]
    corpus = write_rows([*rows, ("ba", ""), ("", "BA")], tmp_path / "long.en.zst", tmp_path / "long.de.zst")
    data = make_data(tmp_path, {"original": corpus}, files.vocabs, max_length=1)
    with pytest.raises(UserError, match=f"none of the {len(rows) + 2} pairs"):
        first_updates(data, 1)


@pytest.mark.parametrize(("alphas", "workers"), [((), 0), ((0.5,), 0), ((0.5,), 1)])
def test_alignments_of_another_corpus_are_refused(
    tmp_path: Path, files: Files, alphas: tuple[float, ...], workers: int
) -> None:
    aln = write_rows([("0-50",)] * 2000, tmp_path / "other.aln.zst")
    corpora = {"original": (*files.corpus[:2], *aln)}
    options = {"guided_alignment": True, "sentencepiece_alphas": alphas}
    with pytest.raises(UserError, match="belong to another corpus"):
        first_updates(make_data(tmp_path, corpora, files.vocabs, workers=workers, **options), 1)


def test_the_thread_makes_one_ahead_and_ends_when_closed() -> None:
    made = []

    def items() -> object:
        for number in itertools.count():
            made.append(number)
            yield number

    stream = in_background(items())  # type: ignore[arg-type]
    assert [next(stream), next(stream), next(stream)] == [0, 1, 2]
    stream.close()
    assert len(made) <= 4
    assert list(in_background(iter([1, 2, 3]))) == [1, 2, 3]
