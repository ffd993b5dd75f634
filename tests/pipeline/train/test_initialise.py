from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import tiny_config, tiny_model, write_tiny

from pipeline.common.errors import UserError
from pipeline.model.formats import npz
from pipeline.model.transformer import Transformer
from pipeline.train.distillation import parse_initialisation
from pipeline.train.initialise import find_model, freeze, initialise


def student(**changes: Any) -> Transformer:
    model = Transformer(tiny_config(**changes))
    model.init_parameters(7)
    return model


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Transformer]:
    teacher = tiny_model(3, enc_depth=6, dec_depth=4)
    return write_tiny(tmp_path_factory.mktemp("deep"), teacher)[0], teacher


def test_a_student_begins_with_the_chosen_layers_and_everything_around_them(deep: tuple[Path, Transformer]) -> None:
    path, teacher = deep
    model = student(enc_depth=3, dec_depth=2)
    initialise(model, path, parse_initialisation({"encoder-layers": "alternating", "decoder-layers": [2, 4]}))
    origin = {"encoder_l1": "encoder_l1", "encoder_l2": "encoder_l4", "encoder_l3": "encoder_l6"}
    origin |= {"decoder_l1": "decoder_l2", "decoder_l2": "decoder_l4"}
    for name, parameter in model.named_parameters():
        layer = "_".join(name.split("_")[:2])
        wanted = teacher.get_parameter(name.replace(layer, origin.get(layer, layer), 1))
        assert torch.equal(parameter, wanted), name
    assert len({origin[layer] for layer in origin}) == 5


def test_all_of_a_model(deep: tuple[Path, Transformer], tmp_path: Path) -> None:
    path, _ = deep
    model = student(enc_depth=6, dec_depth=4)
    initialise(model, path, parse_initialisation({}))
    npz.save(model, tmp_path / "copy.npz")
    assert (tmp_path / "copy.npz").read_bytes() == path.read_bytes()


def test_recurrent_and_tied_layers_are_layers_too(tmp_path: Path) -> None:
    kinds = {
        "transformer_decoder_autoreg": "rnn",
        "dec_cell": "ssru",
        "dec_depth": 4,
        "transformer_tied_layers": (1, 1, 3, 3),
    }
    teacher = tiny_model(3, **kinds)
    path, _ = write_tiny(tmp_path, teacher)
    model = student(transformer_decoder_autoreg="rnn", dec_cell="ssru", dec_depth=2)
    initialise(model, path, parse_initialisation({"decoder-layers": [2, 4]}))
    recurrent = [name for name, _ in model.named_parameters() if name.startswith("decoder_l1_rnn")]
    assert recurrent
    for name in recurrent:
        assert torch.equal(model.get_parameter(name), teacher.get_parameter(name))
        second, third = name.replace("_l1_", "_l2_"), name.replace("_l1_", "_l3_")
        assert torch.equal(model.get_parameter(second), teacher.get_parameter(third))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim_vocabs": (300, 300)}, "a source vocabulary of 400 pieces, but the one given has 300"),
        ({"dim_vocabs": (400, 300), "tied_embeddings_all": False}, "a target vocabulary of 400 pieces, but .* 300"),
        ({"dim_emb": 64}, "has dim-emb 32, but the model to train has 64"),
        ({"transformer_dim_ffn": 32}, "transformer-dim-ffn 64, but the model to train has 32"),
        ({"transformer_heads": 8}, "transformer-heads 4"),
        ({"tied_embeddings_all": False}, "tied-embeddings-all True"),
        ({"transformer_decoder_autoreg": "rnn", "dec_cell": "ssru"}, "transformer-decoder-autoreg self-attention"),
        ({"transformer_preprocess": "n"}, "encoder_l1_ffn_ffn_ln_.*_pre|encoder_l1_self_Wo_ln_.*_pre"),
        ({}, "6 encoder layers, but the student needs 2"),
    ],
)
def test_models_that_do_not_fit_are_named_before_anything_changes(
    deep: tuple[Path, Transformer], changes: dict[str, Any], message: str
) -> None:
    model = student(**changes)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    choice = {} if not changes else {"encoder-layers": "first", "decoder-layers": "last"}
    with pytest.raises(UserError, match=message):
        initialise(model, deep[0], parse_initialisation(choice))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_directory_stands_for_its_best_model(deep: tuple[Path, Transformer], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds neither"):
        find_model(tmp_path)
    (tmp_path / "model.npz").write_bytes(deep[0].read_bytes())
    assert find_model(tmp_path).name == "model.npz"
    (tmp_path / "final.model.npz.best-chrf.npz").write_bytes(deep[0].read_bytes())
    assert find_model(tmp_path).name == "final.model.npz.best-chrf.npz"
    (tmp_path / "final.model.npz.best-bleu-detok.npz").write_bytes(deep[0].read_bytes())
    with pytest.raises(UserError, match="several best models: give one of"):
        find_model(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        initialise(student(), tmp_path / "absent.npz", parse_initialisation({}))


@pytest.mark.parametrize(
    ("part", "frozen", "trained"),
    [
        ("embeddings", ["Wemb"], ["encoder_l1_self_Wq", "decoder_l1_self_Wq", "decoder_ff_logit_out_b"]),
        ("encoder", ["encoder_l2_ffn_W1", "encoder_l1_self_bq"], ["Wemb", "decoder_l1_context_Wk"]),
        ("decoder", ["decoder_l2_context_Wo_ln_bias"], ["Wemb", "decoder_ff_logit_out_b", "encoder_l1_self_Wv"]),
    ],
)
def test_parts_are_frozen(part: str, frozen: list[str], trained: list[str]) -> None:
    model = student()
    count = freeze(model, (part,))
    assert not any(model.get_parameter(name).requires_grad for name in frozen)
    assert all(model.get_parameter(name).requires_grad for name in trained)
    assert count == sum(p.numel() for p in model.parameters() if not p.requires_grad) > 0
