import math
from pathlib import Path

import pytest
import sacrebleu
import torch

from pipeline.common.errors import UserError
from pipeline.model.search import beam_search
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import Vocab
from pipeline.train.compute import Compute
from pipeline.train.optimizer import smooth, smoothed_copy
from pipeline.train.options import TrainingOptions, model_config
from pipeline.train.validate import Validator, improved

from .conftest import Files, make_pairs, write_rows

OPTIONS = TrainingOptions(
    dim_emb=16, enc_depth=1, dec_depth=1, transformer_heads=2, transformer_dim_ffn=32, beam_size=2, valid_mini_batch=7
)
METRICS = ("chrf", "ce-mean-words", "bleu-detok", "perplexity")
PROCESSOR = Compute(torch.device("cpu"), 1)


def load_vocabs(files: Files) -> tuple[Vocab, Vocab]:
    return Vocab.load(files.vocabs[0]), Vocab.load(files.vocabs[1])


def make_model(vocabs: tuple[Vocab, Vocab]) -> Transformer:
    model = Transformer(model_config(OPTIONS, (len(vocabs[0]), len(vocabs[1])), shared_vocab=False))
    model.init_parameters(1)
    return model


def make_validator(files: Files, options: TrainingOptions = OPTIONS) -> Validator:
    return Validator(files.devset, load_vocabs(files), "de", options, METRICS)  # type: ignore[arg-type]


def test_metrics_are_those_of_a_sentence_by_sentence_evaluation(files: Files) -> None:
    vocabs = load_vocabs(files)
    model, pairs = make_model(vocabs), make_pairs(30, 2)
    model.train()
    values = make_validator(files).validate(model, PROCESSOR)
    assert model.training
    assert tuple(values) == METRICS

    model.eval()
    cost, tokens, translations = 0.0, 0, []
    for source, target, _ in pairs:
        src, trg = torch.tensor(vocabs[0].encode([source])), torch.tensor(vocabs[1].encode([target]))
        mask = torch.ones_like(src, dtype=torch.bool)
        with torch.no_grad():
            log_probs = model(src, mask, trg)[0].log_softmax(-1)
        cost -= log_probs.gather(2, trg.unsqueeze(2)).sum().item()
        tokens += trg.numel()
        translations += vocabs[1].decode([beam_search([model], src, mask, beam_size=2)[0][0].ids])
    references = [[target for _, target, _ in pairs]]
    assert values["ce-mean-words"] == pytest.approx(cost / tokens, rel=1e-4)
    assert values["perplexity"] == pytest.approx(math.exp(cost / tokens), rel=1e-3)
    assert values["chrf"] == pytest.approx(sacrebleu.corpus_chrf(translations, references).score, abs=0.5)


def test_only_what_is_asked_for_is_computed(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.train.validate.beam_search", None)
    vocabs = load_vocabs(files)
    validator = Validator(files.devset, vocabs, "de", OPTIONS, ("ce-mean-words",))  # type: ignore[arg-type]
    assert list(validator.validate(make_model(vocabs), PROCESSOR)) == ["ce-mean-words"]


def test_long_pairs_of_the_devset_are_counted(files: Files, tmp_path: Path) -> None:
    rows = make_pairs(20, 3, longest=3)
    devset = write_rows([*rows, (" ".join(["ba"] * 99), "BA", "")], tmp_path / "d.en", tmp_path / "d.de")
    options = TrainingOptions(valid_max_length=40)
    assert make_validator(Files(files.corpus, devset, files.vocabs), options).left_out == 1
    with pytest.raises(UserError, match="every pair of the devset is longer than valid-max-length 40"):
        long = write_rows([(" ".join(["ba"] * 99), "BA", "")], tmp_path / "l.en", tmp_path / "l.de")
        make_validator(Files(files.corpus, long, files.vocabs), options)


@pytest.mark.parametrize(
    ("metric", "value", "best", "expected"),
    [
        ("chrf", 50.0, None, True),
        ("chrf", 50.0, 49.0, True),
        ("chrf", 50.0, 50.0, False),
        ("ce-mean-words", 2.0, 3.0, True),
        ("perplexity", 3.0, 2.0, False),
    ],
)
def test_better_is_higher_or_lower_by_metric(metric: str, value: float, best: float | None, expected: bool) -> None:
    assert improved(metric, value, best) is expected


def test_smoothing_forgets_faster_at_first(files: Files) -> None:
    model = make_model(load_vocabs(files))
    smoothed = smoothed_copy(model, OPTIONS)
    assert smoothed is not None
    before = smoothed.decoder_l1_ffn_W1.detach().clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    smooth(smoothed, model, 1e-4, updates=1)
    torch.testing.assert_close(smoothed.decoder_l1_ffn_W1, before + (1 - 2 / 11))
    smooth(smoothed, model, 1e-4, updates=10**9)
    torch.testing.assert_close(smoothed.decoder_l1_ffn_W1, before + 1 - (2 / 11) * (1 - 1e-4))
    assert not smoothed.training and not any(parameter.requires_grad for parameter in smoothed.parameters())
    assert smoothed_copy(model, TrainingOptions(exponential_smoothing=0.0)) is None
