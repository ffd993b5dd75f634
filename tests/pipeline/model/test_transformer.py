"""The model's maths: against a second implementation written in NumPy from the formulas, and its own invariants."""

import math

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from tiny_model import padded, tiny_config, tiny_model

from pipeline.model.blocks import sinusoidal_positions
from pipeline.model.transformer import Transformer

SOURCES = [[5, 17, 4, 250, 0], [9, 0], [33, 7, 8, 0]]
TARGETS = [[8, 3, 0], [100, 4, 77, 6, 0], [2, 0]]


class NumpyModel:
    """One sentence at a time, float64, following the formulas word for word."""

    def __init__(self, model):
        self.p = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
        self.config = model.config

    def embed(self, name, ids, shift):
        d, matrix = self.config.dim_emb, self.p["Wemb" if "Wemb" in self.p else f"{name}_Wemb"]
        rows = [matrix[number] * math.sqrt(d) for number in ids]
        rows = [np.zeros(d), *rows[:-1]] if shift else rows
        half = d // 2
        for position, row in enumerate(rows):
            angles = [position * 10000 ** (-i / (half - 1)) for i in range(half)]
            rows[position] = row + np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
        return np.stack(rows)

    def norm(self, x, name, suffix=""):
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        scale, bias = self.p[f"{name}_ln_scale{suffix}"], self.p[f"{name}_ln_bias{suffix}"]
        return scale * centred / np.sqrt(variance + 1e-6) + bias

    def pre(self, x, name, operations):
        return self.norm(x, name, "_pre") if "n" in operations else x

    def post(self, x, name, skip, operations):
        for operation in operations.replace("d", ""):
            x = x + skip if operation == "a" else self.norm(x, name)
        return x

    def attention(self, name, x, memory=None, causal=False):
        config, p = self.config, self.p
        normal = self.pre(x, f"{name}_Wo", config.transformer_preprocess)
        other = normal if memory is None else memory
        q, k, v = (
            source @ p[f"{name}_W{part}"] + p[f"{name}_b{part}"]
            for part, source in (("q", normal), ("k", other), ("v", other))
        )
        size, heads = config.dim_emb // config.transformer_heads, []
        for head in range(config.transformer_heads):
            part = slice(head * size, (head + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            if causal:
                scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            if head == 0:
                self.alignment = weights
            heads.append(weights @ v[:, part])
        output = np.concatenate(heads, -1) @ p[f"{name}_Wo"] + p[f"{name}_bo"]
        return self.post(output, f"{name}_Wo", x, config.transformer_postprocess)

    def recurrence(self, name, x):
        p, config = self.p, self.config
        normal = self.pre(x, name, config.transformer_preprocess)
        state, outputs = np.zeros(config.dim_emb), []
        for row in normal:
            forget = 1 / (1 + np.exp(-(row @ p[f"{name}_Wf"] + p[f"{name}_bf"][0])))
            state = forget * state + (1 - forget) * (row @ p[f"{name}_W"])
            outputs.append(np.maximum(state, 0))
        return self.post(np.stack(outputs), f"{name}_ffn", x, config.transformer_postprocess)

    def ffn(self, name, x):
        p, config = self.p, self.config
        hidden = self.pre(x, f"{name}_ffn", config.transformer_preprocess) @ p[f"{name}_W1"] + p[f"{name}_b1"]
        sigmoid = {"swish": 1.0, "gelu": 1.702}.get(config.transformer_ffn_activation)
        hidden = hidden / (1 + np.exp(-sigmoid * hidden)) if sigmoid else np.maximum(hidden, 0)
        return self.post(hidden @ p[f"{name}_W2"] + p[f"{name}_b2"], f"{name}_ffn", x, config.transformer_postprocess)

    def logits(self, source, target):
        config = self.config
        x = first = self.pre(self.embed("encoder", source, False), "encoder_emb", config.transformer_postprocess_emb)
        for layer in range(1, config.enc_depth + 1):
            x = self.ffn(f"encoder_l{layer}_ffn", self.attention(f"encoder_l{layer}_self", x))
        memory = self.post(x, "encoder_top", first, config.transformer_postprocess_top)
        y = first = self.pre(self.embed("decoder", target, True), "decoder_emb", config.transformer_postprocess_emb)
        for layer in config.transformer_tied_layers or range(1, config.dec_depth + 1):
            if config.transformer_decoder_autoreg == "rnn":
                y = self.recurrence(f"decoder_l{layer}_rnn", y)
            else:
                y = self.attention(f"decoder_l{layer}_self", y, causal=True)
            y = self.ffn(f"decoder_l{layer}_ffn", self.attention(f"decoder_l{layer}_context", y, memory))
        y = self.post(y, "decoder_top", first, config.transformer_postprocess_top)
        matrix = self.p.get("decoder_ff_logit_out_W")
        if matrix is None:
            matrix = self.p["Wemb" if "Wemb" in self.p else "decoder_Wemb"].T
        return y @ matrix + self.p.get("decoder_ff_logit_out_b", 0)


@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_a_padded_batch_equals_the_formulas_sentence_by_sentence(changes):
    model = tiny_model(**changes)
    src, src_mask = padded(SOURCES)
    trg, _ = padded(TARGETS)
    logits, attention = model(src, src_mask, trg, alignment=True)
    reference = NumpyModel(model)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        expected = reference.logits(source, target)
        np.testing.assert_allclose(logits[row, : len(target)].detach().numpy(), expected, atol=2e-5)
        # The last attention computed is the last layer's cross attention: the default alignment layer.
        weights = attention[row, : len(target), : len(source)].detach().numpy()
        np.testing.assert_allclose(weights, reference.alignment, atol=1e-6)
        assert attention[row, :, len(source) :].abs().max().item() == 0 if len(source) < src.shape[1] else True


def test_the_position_table_of_width_four():
    # half = 2: frequencies 10000^0 and 10000^-1, sines first, then cosines.
    expected = [[0, 0, 1, 1], [math.sin(1), math.sin(1e-4), math.cos(1), math.cos(1e-4)]]
    np.testing.assert_array_equal(sinusoidal_positions(2, 4).numpy(), np.float32(expected))


def test_the_first_decoder_input_is_a_zero_vector_at_position_zero():
    seen = []
    model = tiny_model()
    original = model.attention
    model.attention = lambda name, x, *rest, **more: (
        seen.append(x) if name == "decoder_l1_self" else None,
        original(name, x, *rest, **more),
    )[1]
    src, src_mask = padded(SOURCES)
    model(src, src_mask, padded(TARGETS)[0])
    half = model.config.dim_emb // 2
    assert seen[0][:, 0].tolist() == [[0.0] * half + [1.0] * half] * len(SOURCES)


def test_a_target_has_no_influence_on_earlier_predictions():
    model = tiny_model()
    src, src_mask = padded(SOURCES[:1])
    one, other = model(src, src_mask, torch.tensor([[4, 5, 6]]))[0], model(src, src_mask, torch.tensor([[4, 9, 7]]))[0]
    assert torch.equal(one[:, :2], other[:, :2])
    assert not torch.allclose(one[:, 2], other[:, 2])


def test_sentences_longer_than_the_position_table():
    model = tiny_model(enc_depth=1, dec_depth=1)
    src = torch.full((1, 1500), 7)
    memory = model.encode(src, torch.ones_like(src, dtype=torch.bool))
    assert memory.shape == (1, 1500, 32)
    assert torch.equal(model.positions[:1024], sinusoidal_positions(1024, 32))


def test_the_alignment_layer_can_be_chosen():
    first, last = tiny_model(transformer_guided_alignment_layer="1"), tiny_model()
    src, src_mask = padded(SOURCES)
    trg = padded(TARGETS)[0]
    chosen, default = (model(src, src_mask, trg, alignment=True)[1] for model in (first, last))
    assert not torch.allclose(chosen, default)
    assert last(src, src_mask, trg)[1] is None


def test_hidden_states_are_the_outputs_of_the_layers_in_order():
    model = tiny_model(enc_depth=3)
    src, src_mask = padded(SOURCES)
    trg = padded(TARGETS)[0]
    encoder_layers, decoder_layers = [], []
    memory = model.encode(src, src_mask, encoder_layers)
    states, _ = model.decode(trg, memory, src_mask, hidden=decoder_layers)
    assert [len(encoder_layers), len(decoder_layers)] == [3, 2]
    # Without operations at the top a stack gives its last layer's output, and a shallower model the layer's before.
    assert torch.equal(encoder_layers[-1], memory) and torch.equal(decoder_layers[-1], states)
    shallow = tiny_model(enc_depth=2)
    shallow.load_state_dict({name: model.state_dict()[name] for name in shallow.state_dict()})
    assert torch.equal(shallow.encode(src, src_mask), encoder_layers[1])


def test_one_seed_one_model_in_marians_ranges():
    config = tiny_config()
    models = [Transformer(config) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        model.init_parameters(seed)
    assert torch.equal(models[0].Wemb, models[1].Wemb)
    assert not torch.equal(models[0].Wemb, models[2].Wemb)
    assert models[0].Wemb.abs().max().item() == pytest.approx(math.sqrt(3 / 32), rel=0.01)
    assert models[0].encoder_l1_ffn_W1.abs().max().item() == pytest.approx(math.sqrt(6 / 96), rel=0.01)
    assert torch.equal(models[0].encoder_l1_self_Wo_ln_scale, torch.ones(1, 32))
    assert torch.equal(models[0].decoder_l2_context_bq, torch.zeros(1, 32))


def test_training_in_bfloat16_gives_finite_float32_gradients_for_every_parameter():
    model = tiny_model().train()
    src, src_mask = padded(SOURCES)
    trg, trg_mask = padded(TARGETS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, attention = model(src, src_mask, trg, alignment=True)
        loss = torch.nn.functional.cross_entropy(logits[trg_mask].float(), trg[trg_mask]) - attention.mean()
    loss.backward()
    exact = tiny_model()(src, src_mask, trg)[0]
    assert (logits.float() - exact).abs().max() < 0.2
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("name", ["transformer_dropout", "transformer_dropout_attention", "transformer_dropout_ffn"])
def test_dropout_acts_in_training_only(name):
    model = tiny_model(**{name: 0.5})
    src, src_mask = padded(SOURCES)
    trg = padded(TARGETS)[0]
    exact = tiny_model()(src, src_mask, trg)[0]
    assert torch.equal(model(src, src_mask, trg)[0], exact)
    model.train()
    assert not torch.allclose(model(src, src_mask, trg)[0], exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_the_mean_and_drops_each_element_as_often(dtype):
    torch.manual_seed(1)
    model = Transformer(tiny_config(transformer_dropout=0.3)).train()
    x = torch.ones(1001, 333, dtype=dtype, requires_grad=True)
    y = model.dropout(x, 0.3)
    kept = y != 0
    assert y.dtype == dtype
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.003)
    assert kept.float().mean(0).sub(0.7).abs().max().item() < 0.07
    # Neighbours are drawn from one random number, and yet independently.
    for distance in (1, 2, 3, 4):
        flat = kept.flatten().float() - 0.7
        assert (flat[distance:] * flat[:-distance]).mean().item() == pytest.approx(0, abs=0.003)
    assert torch.unique(y[kept]).numel() == 1 and y[kept][0].item() == pytest.approx(1 / 0.7, rel=0.004)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert torch.equal(model.eval().dropout(x, 0.3), x)
