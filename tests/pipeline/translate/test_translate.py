"""Bulk translation."""

import itertools
import logging

import pytest
import torch
from external_models import SOURCES, TARGETS, published
from opus_model import write_opus_model
from sentencepiece import sentencepiece_model_pb2
from tiny_model import padded, tiny_model, tiny_vocab, toy_pairs, trained_files, trained_model, write_tiny

from pipeline.common.errors import UserError
from pipeline.common.files import read_lines, write_lines
from pipeline.continuation.external import Languages, import_model
from pipeline.model.formats import lexicon, marian, npz
from pipeline.model.search import beam_search
from pipeline.model.vocab import Vocab, with_prefix
from pipeline.translate import translate
from pipeline.translate.nbest import parse_hypothesis

SENTENCES = [source for source, _ in toy_pairs(90, seed=3)]


@pytest.fixture(autouse=True)
def one_processor(monkeypatch):
    monkeypatch.setenv("LIMBECK_CPUS", "1")
    yield
    torch.set_num_threads(1)


def run(tmp_path, lines, *flags, models=None, vocabs=None):
    model, vocab = trained_files()
    with write_lines(tmp_path / "in.zst") as text:
        for line in lines:
            text.write(line)
    files = ["--input", str(tmp_path / "in.zst"), "--output", str(tmp_path / "out.zst")]
    vocabs = ["--src-vocab", str(vocab), "--trg-vocab", str(vocab)] if vocabs is None else vocabs
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


@pytest.mark.parametrize("recurrent", [False, True], ids=["ctranslate2", "torch"])
def test_a_shortlist_leaves_its_candidates_only(tmp_path, recurrent):
    vocab = tiny_vocab()
    model = trained_model(transformer_decoder_autoreg="rnn", dec_cell="ssru") if recurrent else trained_model()
    models = [write_tiny(tmp_path, model)[0]]
    ids = vocab.encode(SENTENCES[:8])
    targets = sorted({number for sentence in vocab.encode(expected(SENTENCES)) for number in sentence})[::2]
    entries = [(source, target) for source in sorted({number for row in ids for number in row}) for target in targets]
    with write_lines(tmp_path / "lex.zst") as text:
        for source, target in entries:
            text.write(f"{vocab.all_pieces[target]} {vocab.all_pieces[source]} 0.1")
    flags = ["--shortlist", str(tmp_path / "lex.zst"), "--shortlist-first"]
    lines = [*SENTENCES[:8], ""]
    free = run(tmp_path, lines, models=models)
    assert run(tmp_path, lines, *flags, "400", models=models) == free
    made = lexicon.read_text(tmp_path / "lex.zst", vocab, vocab, first=40)
    src, src_mask = padded(ids)
    candidates = made.candidates(src, len(vocab), shared_vocab=True)
    found = beam_search([model], src, src_mask, 4, candidates=candidates)
    restricted = run(tmp_path, lines, *flags, "40", models=models)
    assert restricted != free
    if recurrent:
        assert restricted == [*vocab.decode([hypotheses[0].ids for hypotheses in found]), ""]
    else:  # CTranslate2 has no pieces that only fill the columns up
        allowed = {vocab.all_pieces[number] for number in candidates.tolist()}
        pieces = {vocab.all_pieces[number] for row in vocab.encode(restricted, add_eos=False) for number in row}
        assert pieces <= allowed


def test_a_shortlist_is_not_for_models_with_other_vocabularies(tmp_path, external):
    with write_lines(tmp_path / "lex.zst") as text:
        text.write("▁a ▁b 1")
    with pytest.raises(UserError, match="a model of another maker, with vocabularies of its own"):
        run(tmp_path, SOURCES, "--shortlist", str(tmp_path / "lex.zst"), models=[external], vocabs=[])


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


def test_an_ensemble_may_bring_a_vocabulary_for_each_model(tmp_path):
    model, vocab = trained_files()
    each = ["--src-vocab", str(vocab), str(vocab), "--trg-vocab", str(vocab)]
    assert run(tmp_path, SENTENCES[:5], models=[model, model], vocabs=each) == expected(SENTENCES[:5])
    other = tmp_path / "other.spm"
    proto = sentencepiece_model_pb2.ModelProto.FromString(vocab.read_bytes())
    proto.pieces[70].piece, proto.pieces[71].piece = proto.pieces[71].piece, proto.pieces[70].piece
    other.write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match=r"other.spm \(400 pieces\) is not .*vocab.spm \(400\): the first .* piece 70"):
        run(tmp_path, SENTENCES, models=[model, model], vocabs=[*each, str(other)])
    with pytest.raises(UserError, match="--src-vocab is given 2 times for 3 models"):
        run(tmp_path, SENTENCES, models=[model] * 3, vocabs=each)
    with pytest.raises(UserError, match="--trg-vocab is missing"):
        run(tmp_path, SENTENCES, vocabs=["--src-vocab", str(vocab)])


def test_a_prefix_stands_before_every_source_that_has_words(tmp_path):
    lines = [SENTENCES[0], "", SENTENCES[1]]
    prefixed = run(tmp_path, lines, "--source-prefix", "tako ")
    assert prefixed == [*expected([f"tako {SENTENCES[0]}"]), "", *expected([f"tako {SENTENCES[1]}"])]
    assert prefixed != run(tmp_path, lines)


def test_a_tag_of_opus_is_one_piece_before_every_source(tmp_path):
    opus = write_opus_model(tmp_path / "opus")
    source, target = marian.write_vocabs(opus.path, tmp_path)
    npz.save(marian.load(opus.path), tmp_path / "model.npz")
    given = {"models": [tmp_path / "model.npz"], "vocabs": ["--src-vocab", str(source), "--trg-vocab", str(target)]}
    prefixed = run(tmp_path, SENTENCES[:9], "--source-prefix", ">>deu<<", **given)
    assert prefixed == run(tmp_path, [f">>deu<< {text}" for text in SENTENCES[:9]], **given)
    assert prefixed != run(tmp_path, SENTENCES[:9], **given)
    pieces = Vocab.load(source).pieces(with_prefix(SENTENCES[:1], ">>deu<<"))[0]
    assert pieces[0].lstrip("▁") == ">>deu<<" and pieces[1:] == Vocab.load(source).pieces(SENTENCES[:1])[0]
    with pytest.raises(UserError, match="has no tag >>dex<<: the nearest are >>deu<<"):
        run(tmp_path, SENTENCES, "--source-prefix", ">>dex<<", **given)
    with pytest.raises(UserError, match="has no tag >>deu<<: it has none"):
        run(tmp_path, SENTENCES, "--source-prefix", ">>deu<<")


@pytest.fixture(scope="module")
def external(tmp_path_factory):
    folder = tmp_path_factory.mktemp("external") / "model"
    torch.manual_seed(3)  # whichever tests came before, the model learns its sentences by heart
    import_model(str(published("marian-tags")), "huggingface", None, Languages(None, "deu"), folder)
    return folder


def test_a_model_of_another_maker_brings_all_it_needs(tmp_path, external, monkeypatch):
    monkeypatch.setattr(translate, "BLOCK", 7)
    lines = [*SOURCES[:5], "", *SOURCES[5:], "  "]
    assert run(tmp_path, lines, models=[external], vocabs=[]) == [*TARGETS[:5], "", *TARGETS[5:], ""]
    monkeypatch.setenv("LIMBECK_CPUS", "3")
    assert run(tmp_path, lines, models=[external], vocabs=[]) == [*TARGETS[:5], "", *TARGETS[5:], ""]


def test_nbest_lists_of_a_model_of_another_maker(tmp_path, external):
    lines = [*SOURCES[:3], ""]
    found = run(tmp_path, lines, "--nbest", "--options", '{"beam-size": 3}', models=[external], vocabs=[])
    rows = [parse_hypothesis(line) for line in found]
    assert [number for number, _, _ in rows] == [number for number in range(4) for _ in range(3)]
    assert [text for _, text, _ in rows[::3]] == [*TARGETS[:3], ""]
    assert all(a[0] != b[0] or a[2] >= b[2] for a, b in itertools.pairwise(rows))


def test_sources_too_long_for_a_model_of_another_maker_are_cut_and_counted(tmp_path, external, caplog):
    with caplog.at_level(logging.WARNING):
        run(tmp_path, [SOURCES[0], " ".join(SOURCES)], models=[external], vocabs=[])
    assert "1 of 2 sentences were longer than 63 pieces and cut there" in caplog.text


def test_what_a_model_of_another_maker_cannot_do(tmp_path, external):
    model, _ = trained_files()
    with pytest.raises(UserError, match="brings its own tokenizer: leave --src-vocab and --trg-vocab away"):
        run(tmp_path, SOURCES, models=[external])
    with pytest.raises(UserError, match="it cannot vote piece by piece with others"):
        run(tmp_path, SOURCES, models=[model, external])
    with pytest.raises(UserError, match="it cannot vote piece by piece with others"):
        run(tmp_path, SOURCES, models=[external, external], vocabs=[])
    with pytest.raises(UserError, match="float16 needs a GPU"):
        run(tmp_path, SOURCES, "--options", '{"precision": "float16"}', models=[external], vocabs=[])
    assert not (tmp_path / "out.zst").exists()
