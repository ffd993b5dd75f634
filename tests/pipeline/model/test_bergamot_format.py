"""Marian's binary files, binary shortlists, and what is known of the browser's engine; the engine itself is the judge
in tests/pipeline/export/test_browser_engine.py."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from tiny_model import padded, tiny_files, tiny_model, tiny_vocab, toy_pairs

from pipeline.common.errors import UserError
from pipeline.common.files import write_lines
from pipeline.model import show
from pipeline.model.calibration import DEVIATIONS, calibrate
from pipeline.model.formats import bergamot, lexicon, npz
from pipeline.model.formats import marian_binary as binary

POST_NORM = {name: changes for name, changes in ARCHITECTURES.items() if "pre-norm" not in name}


def alphas_of(model):
    return {name: 10.0 + place for place, name in enumerate(bergamot.product_inputs(model.config))}


@pytest.mark.parametrize("changes", POST_NORM.values(), ids=POST_NORM)
def test_what_is_written_is_read_again(tmp_path, changes):
    model = tiny_model(**changes)
    bergamot.save(model, tmp_path / "float32.bin")
    bergamot.save(model, tmp_path / "int8.bin", alphas_of(model))
    exact, rounded = bergamot.load(tmp_path / "float32.bin"), bergamot.load(tmp_path / "int8.bin")
    assert exact.config == rounded.config == model.config
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, exact.get_parameter(name))
        difference = (parameter - rounded.get_parameter(name)).abs().max()
        if len(parameter) == 1:
            assert difference == 0
        else:
            assert 0 < difference <= 0.5001 * parameter.abs().max() / 127
    assert bergamot.load_alphas(tmp_path / "int8.bin") == pytest.approx(alphas_of(model))
    assert bergamot.load_alphas(tmp_path / "float32.bin") == {}


def test_the_layout_is_marians(tmp_path):
    matrix = np.array([[1.0, -2.0, 0.5], [0.25, 0.0, 4.0]], np.float32)
    items = [
        binary.float32_item("a_bias", matrix[:1]),
        binary.int8_item("a_Wq", matrix),
        binary.int8_item("Wemb", matrix),
        binary.text_item("special:model.yml", "type: transformer\n"),
    ]
    binary.write(tmp_path / "made.bin", items)
    content = (tmp_path / "made.bin").read_bytes()
    numbers = struct.unpack_from("<18Q", content)
    assert numbers[:2] == (1, 4)
    assert numbers[2:6] == (7, 0x0404, 2, 256)
    assert numbers[6:10] == (5, 0x4101, 2, 256)
    assert numbers[10:14] == (5, 0x4101, 2, 256)
    assert numbers[14:18] == (18, 0x0101, 1, 19)
    names = content[144 : 144 + 35]
    assert names == b"a_bias\0a_Wq\0Wemb\0special:model.yml\0"
    assert struct.unpack_from("<7i", content, 179) == (1, 3, 2, 3, 2, 3, 19)
    assert struct.unpack_from("<Q", content, 207) == (256 - 215,)
    assert content[256:268] == matrix[0].tobytes()
    by_columns, scale = struct.unpack_from("<6b", content, 512), struct.unpack_from("<f", content, 518)
    assert by_columns == (32, 8, -64, 0, 16, 127) and scale == (31.75,)  # 31.75 -> 32, 15.875 -> 16, halves to even
    assert struct.unpack_from("<6b", content, 768) == (32, -64, 16, 8, 0, 127)  # embeddings: row by row
    assert content[1024:] == b"type: transformer\n\0"


def test_halves_are_rounded_to_even_and_zeros_stay_zeros():
    item = binary.int8_item("a_W", np.array([[127.0, 0.5, 1.5, -2.5]], np.float32))
    assert item.values.tolist() == [[127, 0, 2, -2]]
    assert not binary.int8_item("a_W", np.zeros((2, 2), np.float32)).values.any()


def test_items_are_sorted_and_the_configuration_is_last(tmp_path):
    model = tiny_model(**ARCHITECTURES["ssru"])
    bergamot.save(model, tmp_path / "int8.bin", alphas_of(model))
    items = {item.name: item for item in binary.read(tmp_path / "int8.bin")}
    assert list(items) == [*sorted(items.keys() - {npz.CONFIG_NAME}), npz.CONFIG_NAME]
    eight_bits = {name for name, item in items.items() if item.type == binary.Type.INTGEMM8}
    assert eight_bits == {name for name, parameter in model.named_parameters() if len(parameter) > 1}
    assert {"decoder_l1_rnn_W", "decoder_l2_rnn_Wf", "encoder_l1_ffn_W2", "Wemb"} < eight_bits
    assert items["none_QuantMultA"].values == items["Wemb_QuantMultA"].values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (ARCHITECTURES["pre-norm"], "normalises the queries alone"),
        ({"transformer_postprocess_emb": "n", "transformer_postprocess_top": "an"}, "adds something else"),
        ({"dim_emb": 36}, "multiple of 64"),
        ({"transformer_dim_ffn": 72}, "multiple of 64"),
        ({"dim_vocabs": (396, 396)}, "such as 392"),
    ],
    ids=str,
)
def test_what_the_engine_cannot_compute(tmp_path, changes, message):
    model = tiny_model(**changes)
    with pytest.raises(UserError, match=message):
        bergamot.save(model, tmp_path / "int8.bin", alphas_of(model))
    assert not list(tmp_path.iterdir())


def test_values_that_are_no_numbers(tmp_path):
    model = tiny_model()
    with pytest.raises(UserError, match="alpha of Wemb is None"):
        bergamot.save(model, tmp_path / "int8.bin", {**alphas_of(model), "Wemb": None})
    with torch.no_grad():
        model.get_parameter("encoder_l1_ffn_W1")[3, 4] = float("nan")
    with pytest.raises(UserError, match="encoder_l1_ffn_W1"):
        bergamot.save(model, tmp_path / "int8.bin", alphas_of(model))


def test_files_that_are_none(tmp_path):
    path = tmp_path / "model.bin"
    with pytest.raises(UserError, match="does not exist"):
        bergamot.load(path)
    bergamot.save(tiny_model(), path)
    whole = path.read_bytes()
    for end in (0, 7, 15, 100, 2000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match="not a whole binary file"):
            bergamot.load(path)
    for place, value in ((0, 2), (8, 1 << 40), (24, 0x4102), (32, 99), (40, 1 << 50)):
        path.write_bytes(whole[:place] + struct.pack("<Q", value) + whole[place + 8 :])
        with pytest.raises(UserError, match="not a whole binary file"):
            bergamot.load(path)
    with pytest.raises(UserError, match="not a whole binary file"):
        bergamot.load(tiny_files()[0])


@pytest.mark.parametrize("changes", POST_NORM.values(), ids=POST_NORM)
def test_every_product_is_calibrated_and_batches_do_not_matter(changes):
    model = tiny_model(**changes)
    sources = tiny_vocab().encode([source for source, _ in toy_pairs(5, seed=5)], add_eos=False)
    found = calibrate(model, sources)
    assert found.keys() == set(bergamot.product_inputs(model.config))
    assert found == calibrate(model, sources)
    if model.config.transformer_tied_layers:
        return  # a matrix has several inputs in each sentence
    # Whatever is next to a sentence, its inputs are its own: two sentences of unequal length, alone and together.
    pair = sorted(sources, key=len)[:: len(sources) - 1]
    together, (one, two) = calibrate(model, pair), (calibrate(model, [source]) for source in pair)
    for name, alpha in together.items():
        largest = [127 / one[name], 127 / two[name]]
        assert 127 / alpha == pytest.approx(np.mean(largest) + DEVIATIONS * np.std(largest), rel=1e-4)


def test_alphas_are_those_of_the_inputs_themselves():
    model = tiny_model()
    sources = tiny_vocab().encode([source for source, _ in toy_pairs(9, seed=6)], add_eos=False)
    largest = []
    for source in sources:
        ids, _ = padded([[*source, 0]])
        largest.append(model.place("encoder", model.lookup("encoder", ids), 0).abs().max().item())
    expected = 127 / (np.mean(largest) + DEVIATIONS * np.std(largest))
    found = calibrate(model, sources)
    assert [found[f"encoder_l1_self_W{part}"] for part in "qkv"] == pytest.approx([expected] * 3, rel=1e-5)
    with pytest.raises(UserError, match="no sentences"):
        calibrate(model, [])


def entries(path: Path, *lines: str) -> Path:
    with write_lines(path) as file:
        for line in lines:
            file.write(line)
    return path


def test_a_shortlist_keeps_the_best_of_each_source_piece(tmp_path):
    vocab = tiny_vocab()
    piece = vocab.all_pieces
    text = entries(
        tmp_path / "lex.zst",
        f"{piece[30]} {piece[5]} 0.5",
        f"{piece[20]} {piece[5]} 0.2",
        f"{piece[10]} {piece[5]} 0.3",
        f"NULL {piece[5]} 0.9",
        f"{piece[7]} NULL 0.9",
        f"{piece[9]} {piece[3]} 1",
    )
    made = lexicon.read_text(text, vocab, vocab, first=60, best=2)
    assert [made.of(source).tolist() for source in (3, 4, 5, 6)] == [[9], [], [10, 30], []]
    lexicon.write(made, tmp_path / "lex.bin")
    content = (tmp_path / "lex.bin").read_bytes()
    # The last source piece has an entry, or the engine would not accept the file.
    numbers = struct.unpack_from("<6Q", content)
    assert numbers[0] == 0xF11A48D5013417F5 and numbers[2:] == (60, 2, 401, 4)
    assert len(content) == 48 + 8 * 401 + 4 * 4
    assert struct.unpack_from("<401Q", content, 48)[-3:] == (3, 3, 4)
    assert struct.unpack_from("<4I", content, 48 + 8 * 401) == (9, 10, 30, 0)
    read = lexicon.read(tmp_path / "lex.bin")
    assert (read.first, read.best, read.ids.tolist(), read.offsets.tolist()) == (
        60,
        2,
        [9, 10, 30, 0],
        made.offsets.tolist(),
    )
    expected = [f"{piece[9]} {piece[3]}", f"{piece[10]} {piece[5]}", f"{piece[30]} {piece[5]}", f"</s> {piece[399]}"]
    assert list(lexicon.lines(read, vocab, vocab)) == expected
    assert list(lexicon.lines(read)) == ["9 3", "10 5", "30 5", "0 399"]


def test_the_checksum_is_of_whole_words():
    content = bytes(range(1, 30))
    value = 0
    for word in struct.unpack_from("<3Q", content):
        value ^= (word + 0x9E3779B9 + (value << 6) + (value >> 2)) % 2**64
    assert lexicon.checksum(content) == value == lexicon.checksum(content[:24])
    assert lexicon.checksum(struct.pack("<Q", 2**64 - 1)) == 0x9E3779B8


def test_candidates_come_in_eights(tmp_path):
    vocab = tiny_vocab()
    piece = vocab.all_pieces
    text = entries(tmp_path / "lex", *(f"{piece[trg]} {piece[src]} 0.1" for src, trg in ((90, 70), (90, 12), (91, 80))))
    made = lexicon.read_text(text, vocab, vocab, first=10, best=50)
    sources = torch.tensor([[90, 0], [95, 0]])
    assert made.candidates(sources, 400, shared_vocab=False).tolist() == [*range(13), 13, 14, 70]
    assert made.candidates(sources, 400, shared_vocab=True).tolist() == [*range(13), 70, 90, 95]


def test_shortlists_that_are_none(tmp_path):
    vocab = tiny_vocab()
    piece = vocab.all_pieces
    for line, message in (
        (f"{piece[3]} {piece[4]}", "line 2: .* is not 'target source probability'"),
        (f"{piece[3]} {piece[4]} x", "line 2: .* is not 'target source probability'"),
        (f"{piece[3]} nothing-such 0.1", "line 2: 'nothing-such' is no piece"),
    ):
        with pytest.raises(UserError, match=message):
            lexicon.read_text(entries(tmp_path / "lex", f"{piece[3]} {piece[4]} 1", line), vocab, vocab)
    path = tmp_path / "lex.bin"
    lexicon.write(lexicon.read_text(entries(tmp_path / "lex", f"{piece[3]} {piece[4]} 1"), vocab, vocab), path)
    whole = path.read_bytes()
    for content, message in (
        (b"something else", "not a binary shortlist"),
        (whole[:-1], "not whole"),
        (whole[:60] + b"\1" + whole[61:], "checksum"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            lexicon.read(path)
    path.write_bytes(whole)
    with pytest.raises(UserError, match="400 source pieces, but the vocabulary has 3"):
        list(lexicon.lines(lexicon.read(path), type("Three", (), {"__len__": lambda _: 3})()))


def test_files_are_shown(tmp_path, capsys):
    model = tiny_model()
    bergamot.save(model, tmp_path / "int8.bin", alphas_of(model))
    show.main([str(tmp_path / "int8.bin")])
    shown = capsys.readouterr().out.splitlines()
    largest = model.get_parameter("encoder_l1_self_Wq").abs().max().item()
    line = next(line for line in shown if line.startswith("encoder_l1_self_Wq\t")).split("\t")
    assert line[1:3] == ["intgemm8", "32x32"] and line[4] == f"scale {127 / largest:.6g}"
    assert "Wemb_QuantMultA\tfloat32\t1x1\tvalue 42" in shown
    assert "dim-emb: 32" in shown
    show.main([str(tiny_files()[0])])
    assert "Wemb\tfloat32\t400x32" in capsys.readouterr().out
    vocab = tiny_vocab()
    text = entries(tmp_path / "lex", f"{vocab.all_pieces[3]} {vocab.all_pieces[399]} 1")
    lexicon.write(lexicon.read_text(text, vocab, vocab), tmp_path / "lex.bin")
    spm = str(tiny_files()[1])
    show.main([str(tmp_path / "lex.bin"), "--src-vocab", spm, "--trg-vocab", spm])
    assert capsys.readouterr().out == f"{vocab.all_pieces[3]} {vocab.all_pieces[399]}\n"
    with pytest.raises(UserError, match="does not exist"):
        show.main([str(tmp_path / "absent")])
