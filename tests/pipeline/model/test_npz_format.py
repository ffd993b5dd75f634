"""model.npz."""

import zipfile

import numpy as np
import pytest
import torch
import yaml
from tiny_model import padded, tiny_config, tiny_model

from pipeline.common.errors import UserError
from pipeline.model.formats import npz

SOURCE, TARGET = padded([[5, 17, 0]]), torch.tensor([[8, 3, 0]])


@pytest.fixture
def path(tmp_path):
    npz.save(tiny_model(), tmp_path / "model.npz")
    return tmp_path / "model.npz"


def arrays(path):
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize("changes", [{}, {"tied_embeddings_all": False}, {"transformer_postprocess_emb": "nd"}])
def test_a_model_survives_to_the_last_bit(tmp_path, changes):
    model = tiny_model(**changes)
    npz.save(model, tmp_path / "model.npz")
    loaded = npz.load(tmp_path / "model.npz")
    assert torch.equal(loaded(*SOURCE, TARGET)[0], model(*SOURCE, TARGET)[0])
    assert npz.load_config(tmp_path / "model.npz") == model.config
    npz.save(loaded, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "model.npz").read_bytes()


def test_the_zip_is_of_the_plainest_kind(path):
    content = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        for entry in file.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            assert not entry.flag_bits & 0b1000, "data descriptor"
            assert entry.extra == b"" and entry.create_version == 20, "zip64"
            assert content[entry.header_offset + 28 : entry.header_offset + 30] == b"\0\0", "no local extra field"
            header = file.read(entry)[:256]
            assert header[:8] == b"\x93NUMPY\x01\x00" and b"'fortran_order': False" in header
            assert int.from_bytes(header[8:10], "little") + 10 <= 256
        assert file.namelist()[-1] == "special:model.yml.npy"


def test_names_and_shapes_are_marians(path):
    found = arrays(path)
    config = found.pop("special:model.yml")
    assert config.dtype == np.int8 and config[-1] == 0 and config[-2] != 0
    assert yaml.safe_load(config[:-1].tobytes())["dim-vocabs"] == [400, 400]
    assert {name: value.shape for name, value in found.items() if name.startswith("decoder_l1_context")} == {
        **{f"decoder_l1_context_W{part}": (32, 32) for part in "qkvo"},
        **{f"decoder_l1_context_b{part}": (1, 32) for part in "qkvo"},
        "decoder_l1_context_Wo_ln_scale": (1, 32),
        "decoder_l1_context_Wo_ln_bias": (1, 32),
    }
    assert found["Wemb"].shape == (400, 32) and found["decoder_ff_logit_out_b"].shape == (1, 400)
    assert found["encoder_l2_ffn_W1"].shape == (32, 64) and found["encoder_l2_ffn_ffn_ln_scale"].shape == (1, 32)
    assert all(value.dtype == np.float32 for value in found.values())
    # Per layer: 4 matrices and biases and a norm for each attention; 2, 2 and a norm for the feed-forward part.
    assert len(found) == 2 + 2 * (10 + 6) + 2 * (10 + 10 + 6)


def test_what_other_writers_do_differently(path, tmp_path):
    model = npz.load(path)
    other = arrays(path)
    other["decoder_ff_logit_out_b"] = other["decoder_ff_logit_out_b"].ravel()
    other["special:model.yml"] = np.concatenate([other["special:model.yml"], np.zeros(5, np.int8)])
    other["Wpos"] = np.zeros((4, 32), np.float32)
    other["encoder_l1_self_Wq_QuantMultA"] = np.ones((1, 1), np.float32)
    np.savez(tmp_path / "other.npz", **other)
    assert torch.equal(npz.load(tmp_path / "other.npz")(*SOURCE, TARGET)[0], model(*SOURCE, TARGET)[0])


def test_an_untied_output_layer_is_read_either_way_round(tmp_path):
    model = tiny_model(tied_embeddings_all=False)
    npz.save(model, tmp_path / "model.npz")
    other = arrays(tmp_path / "model.npz")
    other["decoder_ff_logit_out_Wt"] = np.ascontiguousarray(other.pop("decoder_ff_logit_out_W").T)
    np.savez(tmp_path / "other.npz", **other)
    assert torch.equal(npz.load(tmp_path / "other.npz")(*SOURCE, TARGET)[0], model(*SOURCE, TARGET)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("encoder_l1_self_Wq"), "lacks the parameter encoder_l1_self_Wq"),
        (lambda found: found.update(surprise=np.zeros(3)), "unknown parameter surprise"),
        (lambda found: found.update(Wemb=found["Wemb"][:8]), r"Wemb has shape \(8, 32\)"),
        (lambda found: found.pop("special:model.yml"), "not a Marian model"),
    ],
)
def test_files_that_do_not_fit_their_configuration(path, tmp_path, change, message):
    found = arrays(path)
    change(found)
    np.savez(tmp_path / "bad.npz", **found)
    with pytest.raises(UserError, match=message):
        npz.load(tmp_path / "bad.npz")


def test_damaged_and_missing_files(path, tmp_path):
    whole = path.read_bytes()
    for content in (whole[:-200], whole[: len(whole) // 2], b"", b"PK\x03\x04 not really a zip", b"text"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(UserError, match="not a sound model"):
            npz.load(tmp_path / "bad.npz")
    with pytest.raises(UserError, match="does not exist"):
        npz.load(tmp_path / "absent.npz")


def test_nothing_is_left_behind_when_saving_fails(tmp_path):
    with pytest.raises(ValueError):
        npz.save_arrays({"Wemb": np.array(["text"])}, tiny_config(), tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []
