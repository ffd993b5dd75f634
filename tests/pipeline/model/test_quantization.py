"""The simulated arithmetic of 8-bit engines: by hand, against CTranslate2 itself, and searched as it is scored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from architectures import ARCHITECTURES
from tiny_model import padded, tiny_files, tiny_model, tiny_vocab, toy_pairs, trained_model
from torch import Tensor

from pipeline.common.errors import UserError
from pipeline.model import parity
from pipeline.model.calibration import calibrate
from pipeline.model.formats import bergamot
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.inference import InferenceModel
from pipeline.model.quantization import Quantization, QuantizedTransformer, load_alphas, save_model
from pipeline.model.transformer import Transformer

MATRIX = torch.tensor([[1.0, -0.5], [0.25, 0.1]])  # [out, in]
BIAS = torch.tensor([10.0, 20.0])
X = torch.tensor([[2.0, 1.0], [-8.0, 0.0]])
BROWSER = Quantization("browser", alphas={"W": 31.75})  # 127 / 4: a range of 4
CTRANSLATE2 = Quantization("ctranslate2")
# All that the browser's engine can compute.
IN_BROWSER = [name for name in ARCHITECTURES if "pre-norm" not in name]


def browser_model(model: Transformer, saturation: bool = False) -> QuantizedTransformer:
    alphas = dict.fromkeys(bergamot.product_inputs(model.config), 25.0)
    return QuantizedTransformer.of(model, Quantization("browser", saturation, alphas))


def test_the_browsers_product_has_one_multiplier_for_the_matrix_and_clips_activations() -> None:
    # 127 * [[1, -0.5], [0.25, 0.1]] = [[127, -63.5], [31.75, 12.7]], halves to even
    matrix = np.array([[127, -64], [32, 13]])
    # 31.75 * [[2, 1], [-8, 0]] = [[63.5, 31.75], [-254, 0]], the last clipped
    activations = np.array([[64, 32], [-127, 0]])
    expected = activations @ matrix.T / (31.75 * 127) + BIAS.numpy()
    found = BROWSER.product(X, MATRIX, BIAS, "W")
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    assert found[1, 0] == pytest.approx(10 - 4)  # not 10 - 8


def test_ctranslate2s_product_has_a_multiplier_for_each_output_and_each_row_and_clips_nothing() -> None:
    # rows of the matrix by 127 / 1 and 127 / 0.25, rows of activations by 127 / 2 and 127 / 8
    matrix, activations = np.array([[127, -64], [127, 51]]), np.array([[127, 64], [-127, 0]])
    scales = np.array([[127 / 2], [127 / 8]]) * np.array([[127 / 1, 127 / 0.25]])
    found = CTRANSLATE2.product(X, MATRIX, BIAS, "W")
    np.testing.assert_allclose(found.numpy(), activations @ matrix.T / scales + BIAS.numpy(), rtol=1e-6)


@pytest.mark.parametrize("saturation", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_long_sums_fit_into_smaller_types(dtype: torch.dtype, saturation: bool) -> None:
    x, matrix = torch.full((2, 512), 4.0), torch.full((3, 512), 2.0)
    with torch.autocast("cpu", dtype):
        found = Quantization("browser", saturation, {"W": 31.75}).product(x, matrix, None, "W")
    # Shifted, two products of 254 * 127 are cut at 32767.
    expected = (256 * 32767 - 512 * 127 * 127) / (31.75 * 63.5) if saturation else 512 * 8
    torch.testing.assert_close(found, torch.full((2, 3), expected, dtype=dtype), rtol=0.01, atol=0)


def test_zeros_stay_zeros() -> None:
    for quantization in (BROWSER, CTRANSLATE2):
        assert torch.equal(quantization.product(torch.zeros(2, 2), MATRIX, BIAS, "W"), BIAS.expand(2, 2))
        assert torch.equal(quantization.product(X, torch.zeros(2, 2), BIAS, "W"), BIAS.expand(2, 2))
        assert torch.equal(quantization.embeddings(torch.zeros(3, 2), torch.zeros(4, 2)), torch.zeros(3, 2))


def test_sums_of_two_products_saturate_in_sixteen_bits() -> None:
    alphas = {"W": 1.0}
    x, matrix = torch.tensor([[127.0, 100.0, 3.0, -4.0]]), torch.tensor([[127.0, 127.0, 5.0, 6.0]])
    # Shifted by 127: 254 * 127 + 227 * 127 = 61,087 becomes 32,767; 130 * 5 + 123 * 6 = 1,388 fits.
    saturated = 32767 + 1388 - 127 * (127 + 127 + 5 + 6)
    assert Quantization("browser", True, alphas).product(x, matrix, None, "W").item() == saturated
    exact = 127 * 127 + 100 * 127 + 3 * 5 - 4 * 6
    assert Quantization("browser", False, alphas).product(x, matrix, None, "W").item() == exact


def test_sums_that_saturate_are_those_of_numpy_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.model.quantization._HELD", 100)
    rng = np.random.default_rng(1)
    x, matrix = rng.integers(-127, 128, (2, 5, 16)), rng.integers(-127, 128, (7, 16))
    products = ((x + 127)[:, :, None, :] * matrix).reshape(2, 5, 7, 8, 2).sum(-1)
    expected = products.clip(-32768, 32767).sum(-1) - 127 * matrix.sum(1)
    assert (products > 32767).any() and (products < -32768).any()
    tensors = [torch.from_numpy(array).float() for array in (x, matrix)]
    found = Quantization("browser", True).sums(tensors[0], tensors[1])
    np.testing.assert_array_equal(found.numpy(), expected)


def gradients(quantization: Quantization, x: Tensor) -> tuple[Tensor, Tensor]:
    x, matrix = x.clone().requires_grad_(), MATRIX.clone().requires_grad_()
    quantization.product(x, matrix, BIAS, "W").backward(torch.tensor([[1.0, 0.0], [1.0, 2.0]]))
    assert x.grad is not None and matrix.grad is not None
    return x.grad, matrix.grad


@pytest.mark.parametrize("saturation", [False, True])
def test_gradients_pass_rounding_but_not_clipping(saturation: bool) -> None:
    x_gradient, matrix_gradient = gradients(Quantization("browser", saturation, {"W": 31.75}), X)
    rounded = torch.tensor([[127, -64], [32, 13]]) / 127
    expected = torch.tensor([[1.0, 0.0], [1.0, 2.0]]) @ rounded
    expected[1, 0] = 0  # -8 is clipped
    torch.testing.assert_close(x_gradient, expected)
    clipped = torch.tensor([[64, 32], [-127, 0]]) / 31.75
    torch.testing.assert_close(matrix_gradient, torch.tensor([[1.0, 1.0], [0.0, 2.0]]) @ clipped)


def test_the_largest_number_that_is_not_clipped_has_a_gradient() -> None:
    # 127.4 / 31.75 is rounded to 127, 127.6 / 31.75 would be 128.
    x_gradient, _ = gradients(BROWSER, torch.tensor([[127.4 / 31.75, 127.6 / 31.75], [0, 0]]))
    assert x_gradient[0, 0] != 0 and x_gradient[0, 1] == 0


def test_with_ctranslate2_every_gradient_passes() -> None:
    x_gradient, _ = gradients(CTRANSLATE2, X)
    rounded = torch.tensor([[127 / 127, -64 / 127], [127 / 508, 51 / 508]])
    torch.testing.assert_close(x_gradient, torch.tensor([[1.0, 0.0], [1.0, 2.0]]) @ rounded)


@pytest.mark.parametrize("quantization", [BROWSER, CTRANSLATE2], ids=["browser", "ctranslate2"])
def test_compiling_changes_neither_values_nor_gradients(quantization: Quantization) -> None:
    def compute(x: Tensor, matrix: Tensor) -> Tensor:
        return quantization.product(x, matrix, BIAS, "W") * quantization.embeddings(matrix, matrix).sum()

    found = []
    for function in (compute, torch.compile(compute, backend="aot_eager", dynamic=True, fullgraph=True)):
        x, matrix = X.clone().requires_grad_(), MATRIX.clone().requires_grad_()
        y = function(x, matrix)
        y.square().sum().backward()
        found.append([y.detach(), x.grad, matrix.grad])
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("name", IN_BROWSER)
@pytest.mark.parametrize("saturation", [False, True])
def test_searching_in_the_browsers_arithmetic_is_scoring_in_it(name: str, saturation: bool) -> None:
    assert_searched_as_scored(browser_model(tiny_model(**ARCHITECTURES[name]), saturation))


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if "ssru" not in name])
def test_searching_in_ctranslate2s_arithmetic_is_scoring_in_it(name: str) -> None:
    assert_searched_as_scored(QuantizedTransformer.of(tiny_model(**ARCHITECTURES[name]), CTRANSLATE2))


@torch.no_grad()
def assert_searched_as_scored(model: QuantizedTransformer) -> None:
    src, src_mask = padded([[5, 17, 4, 250, 0], [9, 0], [33, 7, 8, 0]])
    trg = torch.tensor([[8, 3, 0, 0, 0], [100, 4, 77, 6, 0], [2, 0, 9, 9, 9]])
    expected, _ = model(src, src_mask, trg)
    incremental = InferenceModel(model, torch.bfloat16)
    state = incremental.start(incremental.encode(src, src_mask), src_mask)
    steps = [incremental.step(None, state)]
    steps += [incremental.step(trg[:, place : place + 1], state) for place in range(trg.shape[1] - 1)]
    states = torch.cat(steps, dim=1)
    found = incremental.output_layer(())(states)
    # An activation that lies on the edge between two whole numbers may be rounded either way.
    differences = (found[..., : expected.shape[-1]] - expected).abs()
    assert differences.median() < 1e-5 and differences.max() < 0.2
    plain = Transformer(model.config)
    plain.load_state_dict(model.state_dict())
    assert (plain(src, src_mask, trg)[0] - expected).abs().median() > 1e-3

    some = incremental.output_layer((3,), torch.tensor([2, 3, 250]))(states)[..., :3]
    torch.testing.assert_close(some[..., [0, 2]], found[..., [2, 250]])
    assert (some[..., 1] == -torch.inf).all()


def test_it_computes_what_ctranslate2_computes(tmp_path: Path) -> None:
    model, vocab_path, vocab = trained_model(), tiny_files()[1], tiny_vocab()
    pairs = toy_pairs(80, 9)
    sample = parity.Sample(vocab.encode([pair[0] for pair in pairs], add_eos=False), "80 sentences")
    ctranslate2_format.save(model, tmp_path / "int8", (vocab_path, vocab_path), "int8")
    engine = ctranslate2_format.CTranslate2Engine(tmp_path / "int8", (vocab, vocab))
    simulation = parity.TorchEngine(QuantizedTransformer.of(model, CTRANSLATE2))
    found = parity.compare(simulation, engine, sample)
    assert found.mean_difference < 2e-3
    assert found.same_greedy >= 0.9 * len(pairs)
    # The float model is further away by far: it is the arithmetic that is simulated, not only the model.
    assert parity.compare(parity.TorchEngine(model), engine, sample).mean_difference > 3 * found.mean_difference

    references = [[pair[1] for pair in pairs]]
    chrf = [
        sacrebleu.corpus_chrf(vocab.decode(one.translate(sample.sources, 1)), references).score
        for one in (simulation, engine)
    ]
    assert chrf[0] == pytest.approx(chrf[1], abs=0.5)


def test_the_browsers_arithmetic_stays_near_the_float_model() -> None:
    model, vocab = trained_model(), tiny_vocab()
    sources = vocab.encode([pair[0] for pair in toy_pairs(60, 9)], add_eos=False)
    alphas = calibrate(model, sources)
    sample = parity.Sample(sources, "60 sentences")
    exact = parity.TorchEngine(model)
    plain, saturated = (
        parity.compare(
            exact, parity.TorchEngine(QuantizedTransformer.of(model, Quantization("browser", cut, alphas))), sample
        )
        for cut in (False, True)
    )
    assert 1e-3 < plain.mean_difference < 0.05
    assert plain.mean_difference < saturated.mean_difference


def test_multipliers_are_kept_in_the_model_file(tmp_path: Path) -> None:
    model = browser_model(tiny_model())
    save_model(model, tmp_path / "browser.npz")
    save_model(tiny_model(), tmp_path / "float.npz")
    assert load_alphas(tmp_path / "browser.npz") == model.quantization.alphas
    assert load_alphas(tmp_path / "float.npz") == {}


@pytest.mark.parametrize(
    ("target", "changes", "message"),
    [
        ("ctranslate2", ARCHITECTURES["ssru"], "CTranslate2 cannot compute a recurrent decoder"),
        ("browser", {"transformer_dim_ffn": 72}, "transformer-dim-ffn is 72"),
        ("browser", {"dim_vocabs": (401, 401)}, "401 pieces"),
        ("browser", ARCHITECTURES["pre-norm"], "transformer-preprocess 'n'"),
    ],
)
def test_models_that_a_target_cannot_compute_are_errors(target: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        QuantizedTransformer.of(tiny_model(**changes), Quantization(target))


def test_what_is_missing_or_unknown_is_an_error() -> None:
    with pytest.raises(UserError, match="no activation multiplier is known for encoder_l1_self_Wq"):
        QuantizedTransformer.of(tiny_model(), Quantization("browser"))
    with pytest.raises(UserError, match="quantization 'int4' is not known: one of browser, ctranslate2"):
        Quantization("int4")
    with pytest.raises(UserError, match="ctranslate2 has nothing like it"):
        Quantization("ctranslate2", saturation=True)
