"""Beginning with another model's parameters: all of them, or those of some of its layers (shrink and fine-tune).

Shleifer and Rush 2020, "Pre-trained summarization distillation": a student that copies layers of its teacher and is
then trained on is a strong baseline, and the cheapest way to distil.
"""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.common.errors import UserError
from pipeline.model.config import ModelConfig
from pipeline.model.formats import npz
from pipeline.model.transformer import Transformer
from pipeline.train.distillation import Initialisation, chosen_layers

if TYPE_CHECKING:
    from pipeline.train.job import Job  # which asks here what a model file holds

logger = logging.getLogger(__name__)

_LAYER = re.compile(r"(encoder|decoder)_l(\d+)_")
_BEST_MODEL = "final.model.npz.best-*.npz"
_PARTS = {
    "embeddings": re.compile(r".*Wemb"),
    "encoder": re.compile(r"encoder_(?!Wemb)"),
    "decoder": re.compile(r"decoder_(?!Wemb|ff_logit_out)"),
}


def find_model(path: Path) -> Path:
    """The npz file that `path` is, or that the model directory `path` holds: its best model, else its model.npz.

    Raises UserError when there is none, or several best ones.
    """
    if not path.is_dir():
        return path
    best = sorted(path.glob(_BEST_MODEL))
    if len(best) > 1:
        raise UserError(f"{path} holds several best models: give one of {', '.join(file.name for file in best)}")
    found = best[0] if best else path / "model.npz"
    if not found.exists():
        raise UserError(f"{path} holds neither {_BEST_MODEL} nor model.npz: it is not a model directory")
    return found


def begin_model(job: "Job", config: ModelConfig) -> Transformer:
    """The model that a job begins with: drawn at random from its seed, or filled from its initial model, and with the
    parts frozen that it wants frozen.
    """
    model = Transformer(config)
    model.init_parameters(job.options.seed)
    if job.initial is not None:
        initialise(model, job.initial, job.initialisation)
        frozen = freeze(model, job.initialisation.freeze)
        if frozen:
            logger.info(
                f"training: {', '.join(job.initialisation.freeze)} frozen, {frozen / 1e6:.1f} million parameters"
            )
    return model


def initialise(model: Transformer, path: Path, how: Initialisation) -> None:
    """Fill a model with the parameters of another one, the file or model directory `path`, as `how` says.

    Raises UserError before anything is copied when vocabularies, widths or layers do not fit.
    """
    path = find_model(path)
    source = npz.load(path)
    _check_sizes(model, source, path)
    layers = {
        "encoder": chosen_layers(how.encoder_layers, "encoder", model.config.enc_depth, source.config.enc_depth),
        "decoder": chosen_layers(how.decoder_layers, "decoder", model.config.dec_depth, source.config.dec_depth),
    }
    prefixes = {"encoder": source.config.encoder_layers, "decoder": source.config.decoder_layers}
    theirs = dict(source.named_parameters())
    copied: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        wanted = _LAYER.sub(lambda match: f"{prefixes[match[1]][layers[match[1]][int(match[2]) - 1] - 1]}_", name)
        if wanted not in theirs:
            raise UserError(f"{path} has no parameter {wanted}: it is of another architecture than the model to train")
        if theirs[wanted].shape != parameter.shape:
            raise UserError(
                f"{wanted} of {path} is {_shape(theirs[wanted])}, but the model to train needs {_shape(parameter)}"
            )
        copied[name] = theirs[wanted]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(copied[name])
    logger.info(
        f"training: beginning with {path}, "
        + " and ".join(f"{side} layers {', '.join(map(str, chosen))}" for side, chosen in layers.items())
    )


def freeze(model: Transformer, parts: tuple[str, ...]) -> int:
    """Keep parts of a model (embeddings, encoder, decoder) from being trained; returns how many parameters that are."""
    frozen = 0
    for name, parameter in model.named_parameters():
        if any(_PARTS[part].match(name) for part in parts):
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    return frozen


def _check_sizes(model: Transformer, source: Transformer, path: Path) -> None:
    ours, theirs = model.config, source.config
    for side, here, there in zip(("source", "target"), ours.dim_vocabs, theirs.dim_vocabs, strict=True):
        if here != there:
            raise UserError(
                f"{path} has a {side} vocabulary of {there} pieces, but the one given has {here}: "
                "a model begins with another's parameters only over the same vocabulary"
            )
    for name in (
        "dim_emb",
        "transformer_dim_ffn",
        "transformer_heads",
        "transformer_ffn_activation",
        "transformer_decoder_autoreg",
        "tied_embeddings_all",
        "tied_embeddings_src",
        "tied_embeddings",
    ):
        here, there = getattr(ours, name), getattr(theirs, name)
        if here != there:
            raise UserError(
                f"{path} has {name.replace('_', '-')} {there}, but the model to train has {here}: "
                "copied layers must be of the same shape and do the same"
            )


def _shape(tensor: Tensor) -> str:
    return " by ".join(map(str, tensor.shape))
