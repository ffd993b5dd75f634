"""Bulk translation."""

import itertools
import logging

import pytest
import torch
from tiny_model import padded, tiny_model, tiny_vocab, toy_pairs, trained_files, trained_model, write_tiny

from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_lines
from pipeline.model.search import beam_search
from pipeline.translate import translate
from pipeline.translate.nbest import parse_hypothesis

SENTENCES = [source for source, _ in toy_pairs(90, seed=3)]


@pytest.fixture(autouse=True)
def one_processor(monkeypatch):
    monkeypatch.setenv("LIMBECK_CPUS", "1")
    yield
    torch.set_num_threads(1)


def run(tmp_path, lines, *flags, models=None):
    model, vocab = trained_files()
    with write_lines(tmp_path / "in.zst") as text:
        for line in lines:
            text.write(line)
    files = ["--input", str(tmp_path / "in.zst"), "--output", str(tmp_path / "out.zst")]
    vocabs = ["--src-vocab", str(vocab), "--trg-vocab", str(vocab)]
    translate.main(["--model", *map(str, models or [model]), *vocabs, *files, *flags])
    return list(read_lines(tmp_path / "out.zst"))


def expected(lines, beam_size=4):
    vocab = tiny_vocab()
    found = beam_search([trained_model()], *padded(vocab.encode(lines)), beam_size)
    return vocab.decode([hypotheses[0].ids for hypotheses in found])


def test_every_line_gets_its_own_translation_across_blocks_and_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(translate, "BLOCK", 40)
    assert run(tmp_path, SENTENCES) == expected(SENTENCES)


def test_empty_lines_stay_empty(tmp_path):
    lines = ["", SENTENCES[0], "  ", SENTENCES[1], ""]
    assert run(tmp_path, lines, "--options", '{"beam-size": 1}') == ["", *_between(expected(lines[1:4:2], 1)), ""]
    assert run(tmp_path, []) == []
    assert run(tmp_path, [""]) == [""]


def _between(translations):
    return [translations[0], "", translations[1]]


def test_an_ensemble_of_equals_translates_as_its_member(tmp_path):
    model, _ = trained_files()
    lines = [*SENTENCES[:20], ""]
    assert run(tmp_path, lines, models=[model, model]) == [*expected(SENTENCES[:20]), ""]


def test_nbest_lists_have_as_many_lines_as_the_beam_is_wide(tmp_path):
    lines = [*SENTENCES[:10], ""]
    rows = [parse_hypothesis(line) for line in run(tmp_path, lines, "--nbest", "--options", '{"beam-size": 3}')]
    assert [number for number, _, _ in rows] == [number for number in range(11) for _ in range(3)]
    assert [text for _, text, _ in rows[:30:3]] == expected(SENTENCES[:10], 3)
    for first, second in itertools.pairwise(rows):
        assert first[0] != second[0] or first[2] >= second[2]
    assert rows[-3:] == [(10, "", 0.0)] * 3


def test_a_recurrent_decoder_is_translated_with_torch_and_the_log_says_so(tmp_path, caplog):
    model = trained_model(transformer_decoder_autoreg="rnn", dec_cell="ssru")
    path, _ = write_tiny(tmp_path, model)
    with caplog.at_level(logging.INFO):
        found = run(tmp_path, SENTENCES, models=[path])
    assert "CTranslate2 has no recurrent decoder (SSRU): the torch search translates instead" in caplog.text
    vocab = tiny_vocab()
    expected = beam_search([model], *padded(vocab.encode(SENTENCES)), 4)
    assert found == vocab.decode([hypotheses[0].ids for hypotheses in expected])
    with pytest.raises(UserError, match=r"recurrent decoder \(SSRU\) and sampling compute in float32"):
        run(tmp_path, SENTENCES, "--options", '{"precision": "int8"}', models=[path])


def test_samples_are_repeatable_and_differ_between_batches(tmp_path):
    def sample(seed):
        options = f'{{"output-sampling": "topk 20", "beam-size": 1, "seed": {seed}}}'
        return run(tmp_path, [SENTENCES[0]] * 70, "--options", options)

    found = sample(1)
    assert found == sample(1) != sample(2)
    assert len(set(found[:32])) > 3 and found[:32] != found[32:64]


def test_int8_translates_too(tmp_path):
    translations = run(tmp_path, SENTENCES, "--options", '{"precision": "int8", "beam-size": 1}')
    same = sum(map(str.__eq__, translations, expected(SENTENCES, 1)))
    assert len(SENTENCES) / 3 < same


def test_sentences_that_are_cut_are_counted(tmp_path, caplog):
    lines = [SENTENCES[0], " ".join(SENTENCES[:9])]
    vocab = tiny_vocab()
    pieces = vocab.encode(lines[1:], add_eos=False)[0]
    cut = vocab.decode([pieces[:29]])
    with caplog.at_level(logging.WARNING):
        found = run(tmp_path, lines, "--options", '{"max-length": 30}')
    assert "1 of 2 sentences were longer than 30 pieces" in caplog.text
    assert found == expected([lines[0], *cut])


def test_a_line_of_exactly_the_longest_length_is_not_cut(tmp_path, caplog):
    length = len(tiny_vocab().encode([SENTENCES[0]])[0])
    with caplog.at_level(logging.WARNING):
        run(tmp_path, [SENTENCES[0]], "--options", f'{{"max-length": {length}}}')
    assert "longer" not in caplog.text


def test_what_cannot_be_done_is_said(tmp_path):
    model, _ = trained_files()
    with pytest.raises(UserError, match="float16 needs a GPU"):
        run(tmp_path, SENTENCES, "--options", '{"precision": "float16"}')
    with pytest.raises(UserError, match="int8 is for one model"):
        run(tmp_path, SENTENCES, "--options", '{"precision": "int8"}', models=[model, model])
    other, _ = write_tiny(tmp_path, tiny_model(dim_vocabs=(200, 200)))
    with pytest.raises(UserError, match="vocabularies of \\[200, 200\\]"):
        run(tmp_path, SENTENCES, models=[model, other])
    with pytest.raises(UserError, match="did you mean 'beam-size'"):
        run(tmp_path, SENTENCES, "--options", '{"beam": 4}')
    assert not (tmp_path / "out.zst").exists()
