import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import padded, tiny_files, tiny_model, tiny_vocab, toy_pairs, write_tiny

from pipeline.common.corpus import write_columns
from pipeline.common.errors import UserError
from pipeline.common.files import read_lines
from pipeline.model.distributions import format_distributions, parse_distributions, probabilities
from pipeline.score.distributions import main

ROWS = [*toy_pairs(25, seed=5), ("", "zu"), ("ba", ""), toy_pairs(1, seed=6)[0]]


def run(folder: Path, rows: list[tuple[str, str]], *options: str, models: tuple[Path, ...] = ()) -> list[str]:
    paths = folder / "corpus.src.zst", folder / "corpus.trg.zst"
    with write_columns(*paths) as corpus:
        for row in rows:
            corpus.write(*row)
    model, vocab = tiny_files()
    main(
        [
            *("--model", *map(str, models or (model,)), "--src-vocab", str(vocab), "--trg-vocab", str(vocab)),
            *("--corpus-src", str(paths[0]), "--corpus-trg", str(paths[1])),
            *("--output", str(folder / "distributions.zst"), *options),
        ]
    )
    return list(read_lines(folder / "distributions.zst"))


def expected(row: tuple[str, str], *models: torch.nn.Module) -> torch.Tensor:
    vocab = tiny_vocab()
    (src, src_mask), (trg, _) = (padded(vocab.encode([text])) for text in row)
    with torch.no_grad():
        logits = torch.stack([model(src, src_mask, trg)[0][0].log_softmax(-1) for model in models])
    return logits.mean(0).softmax(-1)


def test_each_line_holds_the_likeliest_pieces_of_its_pair(tmp_path: Path) -> None:
    lines = run(tmp_path, ROWS, "--top-k", "5")
    assert len(lines) == len(ROWS)
    for row, line in zip(ROWS, lines, strict=True):
        if not all(row):
            assert line == ""
            continue
        wanted, ids = expected(row, tiny_model()).topk(5, dim=-1)
        numbers = parse_distributions(line, len(wanted), 400)
        np.testing.assert_allclose(probabilities(numbers[..., 1]), wanted, rtol=2e-3)
        # Pieces of nearly the same probability may change places.
        assert (numbers[..., 0] == ids.numpy()).mean() > 0.98


def test_an_ensemble_is_averaged(tmp_path: Path) -> None:
    other, _ = write_tiny(tmp_path, tiny_model(2))
    (line,) = run(tmp_path, ROWS[:1], "--top-k", "399", models=(tiny_files()[0], other))
    wanted = expected(ROWS[0], tiny_model(), tiny_model(2)).numpy()
    numbers = parse_distributions(line, len(wanted), 400)
    found = np.take_along_axis(wanted, numbers[..., 0], axis=-1)
    np.testing.assert_allclose(probabilities(numbers[..., 1]), found, rtol=2e-3)


def test_long_pairs_have_an_empty_line_and_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = run(tmp_path, ROWS, "--max-length", "12")
    lengths = [max(len(side) - 1 for side in tiny_vocab().encode(list(row))) for row in ROWS]
    assert [line == "" for line in lines] == [
        length > 12 or not all(row) for length, row in zip(lengths, ROWS, strict=True)
    ]
    assert f"{lines.count('')} of 28 pairs have no distributions" in caplog.text


def test_bad_input_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--top-k 400: from 1 to 399"):
        run(tmp_path, ROWS, "--top-k", "400")
    other, _ = write_tiny(tmp_path, tiny_model(2, dim_vocabs=(392, 392)))
    with pytest.raises(UserError, match="has 392 source and 392 target pieces, but the vocabularies have 400 and 400"):
        run(tmp_path, ROWS, models=(other,))
    assert not (tmp_path / "distributions.zst").exists()


def test_a_line_reads_as_documented() -> None:
    ids = np.array([[41, 7], [0, 10]], dtype=np.int32)
    log_probs = np.log(np.array([[0.9, 0.1], [0.99, 0.01]], dtype=np.float32))
    line = format_distributions(ids, log_probs)
    assert line == "2 41 105 7 2303 0 10 10 4605"
    numbers = parse_distributions(line, 2, 400)
    assert numbers[..., 0].tolist() == ids.tolist()
    assert float(probabilities(numbers[..., 1])[1, 0]) == pytest.approx(math.exp(-0.010))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "do not fit their sentence of 2 target pieces"),
        ("2 41 105 7 2303", "of 2 target pieces"),
        ("2 41 105 7 2303 0 10 10 4605 9 9 9 9", "of 2 target pieces"),
        ("2 41 105 7 2303 0 10 400 4605", "name piece 400, but there are only 400"),
        ("2 41 0.9 7 0.1 0 0.9 10 0.1", "are not stored distributions"),
        ("0-1 1-2", "are not stored distributions"),
        ("0", "of 2 target pieces"),
    ],
)
def test_lines_that_do_not_fit(line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_distributions(line, 2, 400)
