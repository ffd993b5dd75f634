"""CTranslate2 directories compute what torch computes."""

import json
import logging

import pytest
import torch
from architectures import ARCHITECTURES
from tiny_model import padded, tiny_files, tiny_model, toy_pairs, trained_files, trained_model, write_tiny

from pipeline.common.errors import UserError
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.parity import Sample
from pipeline.model.search import beam_search, longest_translation
from pipeline.model.vocab import Vocab

CHANGES = {
    **{name: ARCHITECTURES[name] for name in ("usual", "pre-norm")},
    "untied": {
        "tied_embeddings_all": False,
        "transformer_ffn_activation": "swish",
        "transformer_postprocess_emb": "nd",
        "output_omit_bias": True,
    },
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_float32_agrees_with_torch(tmp_path, changes):
    model = trained_model(**changes)
    _, vocab_path = write_tiny(tmp_path, model)
    vocab = Vocab.load(vocab_path)
    ctranslate2_format.save(model, tmp_path / "ct2", (vocab_path, vocab_path))
    translator = ctranslate2_format.load(tmp_path / "ct2")
    sources, targets = zip(*toy_pairs(40, seed=2), strict=True)
    src, src_mask = padded(vocab.encode(sources))
    trg, trg_mask = padded(vocab.encode(targets))

    with torch.no_grad():
        log_probs = model(src, src_mask, trg)[0].log_softmax(-1).gather(2, trg.unsqueeze(-1)).squeeze(-1)
    scored = translator.score_batch(vocab.pieces(sources), vocab.pieces(targets))
    theirs = torch.tensor([value for result in scored for value in result.log_probs])
    assert (theirs - log_probs[trg_mask]).abs().max() <= 5e-5

    for beam_size in (1, 4):
        ours = beam_search([model], src, src_mask, beam_size, n_best=beam_size)
        for source, hypotheses in zip(vocab.pieces(sources), ours, strict=True):
            result = translator.translate_batch(
                [source],
                beam_size=beam_size,
                num_hypotheses=beam_size,
                length_penalty=1.0,
                max_decoding_length=longest_translation(len(source) + 1),
                disable_unk=True,
                return_scores=True,
            )[0]
            assert [[vocab.all_pieces[number] for number in found.ids] for found in hypotheses] == result.hypotheses
            assert result.scores == pytest.approx([found.score for found in hypotheses], abs=5e-5)


def test_int8_is_smaller_and_near(tmp_path):
    vocab_path = trained_files()[1]
    vocab = Vocab.load(vocab_path)
    sources, targets = zip(*toy_pairs(20, seed=2), strict=True)
    scores = []
    for quantization in (None, "int8"):
        ctranslate2_format.save(trained_model(), tmp_path / str(quantization), (vocab_path, vocab_path), quantization)
        translator = ctranslate2_format.load(tmp_path / str(quantization))
        results = translator.score_batch(vocab.pieces(sources), vocab.pieces(targets))
        scores.append(torch.tensor([sum(result.log_probs) / len(result.log_probs) for result in results]))
    sizes = [(tmp_path / name / "model.bin").stat().st_size for name in ("None", "int8")]
    assert sizes[1] < 0.7 * sizes[0]
    assert 0 < (scores[0] - scores[1]).abs().mean() < 0.2


def test_the_model_stays_as_it_was(tmp_path):
    vocab_path = tiny_files()[1]
    model = tiny_model()
    for quantization in ("float32", "int8", "float16"):
        ctranslate2_format.save(model, tmp_path / "ct2", (vocab_path, vocab_path), quantization)
    for name, parameter in tiny_model().named_parameters():
        assert torch.equal(parameter, model.get_parameter(name))


def test_the_directory_is_whole_and_can_be_written_again(tmp_path):
    vocab_path = tiny_files()[1]
    for _ in range(2):
        ctranslate2_format.save(tiny_model(), tmp_path / "ct2", (vocab_path, vocab_path))
    assert sorted(path.name for path in (tmp_path / "ct2").iterdir()) == [
        "config.json",
        "model.bin",
        "shared_vocabulary.json",
    ]
    assert json.loads((tmp_path / "ct2/config.json").read_text())["layer_norm_epsilon"] == 1e-6
    assert [path.name for path in tmp_path.iterdir()] == ["ct2"]


def test_tied_decoder_layers_are_written_out(tmp_path):
    vocab_path = tiny_files()[1]
    model = trained_model(transformer_tied_layers=(1, 1))
    sample = sample_of(Vocab.load(vocab_path))
    ctranslate2_format.save(model, tmp_path / "ct2", (vocab_path, vocab_path), sample=sample)
    separate = ctranslate2_format.load(tmp_path / "ct2")
    assert separate.translate_batch([["▁"]])[0].hypotheses


def test_the_comparison_is_shown_and_can_fail(tmp_path, caplog, monkeypatch):
    vocab_path = tiny_files()[1]
    sample = sample_of(Vocab.load(vocab_path))
    with caplog.at_level(logging.INFO):
        ctranslate2_format.save(trained_model(), tmp_path / "ct2", (vocab_path, vocab_path), sample=sample)
        ctranslate2_format.save(trained_model(), tmp_path / "int8", (vocab_path, vocab_path), "int8", sample)
    exact, rounded = caplog.messages
    assert "CTranslate2 float32 against torch on 40 toy sentences: log-probabilities of" in exact
    assert "greedy translations identical 40/40, beam-4 40/40" in exact and "CTranslate2 int8 against torch" in rounded
    # As CTranslate2's own converter has it.
    monkeypatch.setattr(ctranslate2_format, "sinusoidal_positions", lambda length, dim: torch.zeros(length, dim))
    with pytest.raises(UserError, match=r"CTranslate2 float32 does not compute the same model .*differ by at most"):
        ctranslate2_format.save(trained_model(), tmp_path / "bad", (vocab_path, vocab_path), sample=sample)
    assert not (tmp_path / "bad").exists()


def test_what_cannot_be_converted(tmp_path):
    vocab_path = tiny_files()[1]
    vocabs = (vocab_path, vocab_path)
    with pytest.raises(UserError, match="'da'"):
        ctranslate2_format.save(tiny_model(transformer_postprocess="da"), tmp_path / "ct2", vocabs)
    with pytest.raises(UserError, match=r"recurrent decoder .* Marian and Bergamot, the browser's engine, can"):
        ssru = tiny_model(transformer_decoder_autoreg="rnn", dec_cell="ssru")
        ctranslate2_format.save(ssru, tmp_path / "ct2", vocabs)
    with pytest.raises(UserError, match="400 pieces, but the model was trained with 200"):
        ctranslate2_format.save(tiny_model(dim_vocabs=(200, 200)), tmp_path / "ct2", vocabs)
    with pytest.raises(UserError, match="int4"):
        ctranslate2_format.save(tiny_model(), tmp_path / "ct2", vocabs, "int4")
    assert not (tmp_path / "ct2").exists()
    with pytest.raises(UserError, match=r"no model\.bin"):
        ctranslate2_format.load(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"not a model")
    with pytest.raises(UserError, match="cannot load"):
        ctranslate2_format.load(tmp_path)


def sample_of(vocab):
    texts = [source for source, _ in toy_pairs(40, seed=2)]
    return Sample(vocab.encode(texts, add_eos=False), "40 toy sentences", texts)
