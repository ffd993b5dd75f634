"""CTranslate2 directories compute what torch computes."""

import json

import pytest
import torch
from tiny_model import padded, tiny_files, tiny_model, toy_pairs, trained_files, trained_model, write_tiny

from pipeline.common.errors import UserError
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.search import beam_search, longest_translation
from pipeline.model.vocab import Vocab

ARCHITECTURES = {
    "usual": {},
    "pre-norm": {
        "transformer_preprocess": "n",
        "transformer_postprocess": "da",
        "transformer_postprocess_top": "n",
        "transformer_ffn_activation": "gelu",
    },
    "untied": {
        "tied_embeddings_all": False,
        "transformer_ffn_activation": "swish",
        "transformer_postprocess_emb": "nd",
        "output_omit_bias": True,
    },
}


@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_float32_agrees_with_torch(tmp_path, changes):
    model = trained_model(**changes)
    npz_path, vocab_path = write_tiny(tmp_path, model)
    vocab = Vocab.load(vocab_path)
    ctranslate2_format.save(npz_path, vocab_path, vocab_path, tmp_path / "ct2")
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
    npz_path, vocab_path = trained_files()
    vocab = Vocab.load(vocab_path)
    sources, targets = zip(*toy_pairs(20, seed=2), strict=True)
    scores = []
    for quantization in (None, "int8"):
        ctranslate2_format.save(npz_path, vocab_path, vocab_path, tmp_path / str(quantization), quantization)
        translator = ctranslate2_format.load(tmp_path / str(quantization))
        results = translator.score_batch(vocab.pieces(sources), vocab.pieces(targets))
        scores.append(torch.tensor([sum(result.log_probs) / len(result.log_probs) for result in results]))
    sizes = [(tmp_path / name / "model.bin").stat().st_size for name in ("None", "int8")]
    assert sizes[1] < 0.7 * sizes[0]
    assert 0 < (scores[0] - scores[1]).abs().mean() < 0.2


def test_the_directory_is_whole_and_can_be_written_again(tmp_path):
    npz_path, vocab_path = tiny_files()
    for _ in range(2):
        ctranslate2_format.save(npz_path, vocab_path, vocab_path, tmp_path / "ct2")
    assert sorted(path.name for path in (tmp_path / "ct2").iterdir()) == [
        "config.json",
        "model.bin",
        "shared_vocabulary.json",
    ]
    assert json.loads((tmp_path / "ct2/config.json").read_text())["layer_norm_epsilon"] == 1e-6
    assert [path.name for path in tmp_path.iterdir()] == ["ct2"]


def test_what_cannot_be_converted(tmp_path):
    npz_path, vocab_path = tiny_files()
    odd, _ = write_tiny(tmp_path, tiny_model(transformer_postprocess="da"))
    with pytest.raises(UserError, match="'da'"):
        ctranslate2_format.save(odd, vocab_path, vocab_path, tmp_path / "ct2")
    smaller, _ = write_tiny(tmp_path, tiny_model(dim_vocabs=(200, 200)))
    with pytest.raises(UserError, match="400 pieces, but the model"):
        ctranslate2_format.save(smaller, vocab_path, vocab_path, tmp_path / "ct2")
    with pytest.raises(UserError, match="int4"):
        ctranslate2_format.save(npz_path, vocab_path, vocab_path, tmp_path / "ct2", "int4")
    assert not (tmp_path / "ct2").exists()
    with pytest.raises(UserError, match=r"no model\.bin"):
        ctranslate2_format.load(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"not a model")
    with pytest.raises(UserError, match="cannot load"):
        ctranslate2_format.load(tmp_path)
