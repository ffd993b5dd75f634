"""Training options under Marian's names, as training configs in the field already have them."""

import dataclasses
import difflib
import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from pipeline.common.errors import UserError
from pipeline.common.values import finite_number
from pipeline.model.config import ModelConfig
from pipeline.train.schedule import Amount

logger = logging.getLogger(__name__)

_1000_UPDATES, _5000_UPDATES, _8000_UPDATES = (Amount(count, "updates") for count in (1000, 5000, 8000))


@dataclass(frozen=True)
class TrainingOptions:
    """Every option of the trainer; `transformer_dim_ffn` is `transformer-dim-ffn` in a config.

    Meanings are Marian's, with these differences: `mini_batch_words` is the size of a whole update (all micro-batches
    together), in positions of the longer side including padding, and `optimizer_delay` splits an update into that many
    micro-batches instead of multiplying it; `guided_alignment` is a boolean, because alignments come with the corpora;
    `precision` is auto, float32, bfloat16 or float16 (with loss scaling), and `compile` runs the model through
    torch.compile, which on processors is slower.
    """

    # the model
    dim_emb: int = 512
    enc_depth: int = 6
    dec_depth: int = 6
    transformer_heads: int = 8
    transformer_dim_ffn: int = 2048
    transformer_ffn_activation: str = "relu"
    transformer_preprocess: str = ""
    transformer_postprocess: str = "dan"
    transformer_postprocess_emb: str = "d"
    transformer_postprocess_top: str = ""
    transformer_dropout: float = 0.1
    transformer_dropout_attention: float = 0.0
    transformer_dropout_ffn: float = 0.0
    transformer_decoder_autoreg: str = "self-attention"
    dec_cell: str = "gru"
    transformer_tied_layers: tuple[int, ...] = ()
    output_omit_bias: bool = False
    transformer_guided_alignment_layer: str = "last"
    tied_embeddings: bool | None = None
    tied_embeddings_src: bool = False
    tied_embeddings_all: bool | None = None

    # the optimizer
    learn_rate: float = 3e-4
    lr_warmup: Amount = _8000_UPDATES
    lr_decay_inv_sqrt: tuple[Amount, ...] = (_8000_UPDATES,)
    lr_report: bool = True
    optimizer_params: tuple[float, ...] = (0.9, 0.98, 1e-9)
    optimizer_delay: int = 1
    clip_norm: float = 0.0
    exponential_smoothing: float = 1e-4
    precision: str = "auto"
    compile: bool = False

    # the loss
    label_smoothing: float = 0.1
    guided_alignment: bool = False
    guided_alignment_weight: float = 0.1
    guided_alignment_cost: str = "ce"

    # the data
    max_length: int = 100
    max_length_crop: bool = False
    mini_batch_words: int = 16_000
    mini_batch: int = 0
    maxi_batch: int = 200
    sentencepiece_alphas: tuple[float, ...] = ()
    seed: int = 1

    # when to validate, save and stop
    after: tuple[Amount, ...] = ()
    after_epochs: int = 0
    after_batches: int = 0
    early_stopping: int = 10
    valid_freq: Amount = _5000_UPDATES
    save_freq: Amount = _5000_UPDATES
    save_minutes: float = 2.0
    disp_freq: Amount = _1000_UPDATES

    # how to validate
    valid_metrics: tuple[str, ...] = ("chrf", "ce-mean-words", "bleu-detok", "perplexity")
    valid_max_length: int = 300
    valid_mini_batch: int = 32
    beam_size: int = 4
    normalize: float = 1.0

    def limits(self) -> tuple[Amount, ...]:
        """After any of these, training ends."""
        limits = (*self.after, Amount(self.after_epochs, "epochs"), Amount(self.after_batches, "updates"))
        return tuple(limit for limit in limits if limit.count > 0)

    def to_yaml(self) -> dict[str, Any]:
        """The options under Marian's names, as plain values that `parse_options` reads back."""
        values = {_option_name(field.name): _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}


TASKS: dict[str, dict[str, Any]] = {
    "transformer-base": {
        "dim-emb": 512,
        "enc-depth": 6,
        "dec-depth": 6,
        "transformer-heads": 8,
        "transformer-dim-ffn": 2048,
        "transformer-dropout": 0.1,
        "learn-rate": 3e-4,
        "lr-warmup": 16000,
        "lr-decay-inv-sqrt": 16000,
        "label-smoothing": 0.1,
        "optimizer-params": [0.9, 0.98, 1e-9],
        "max-length": 100,
        "beam-size": 8,
        "normalize": 1.0,
    },
    "transformer-big": {
        "dim-emb": 1024,
        "enc-depth": 6,
        "dec-depth": 6,
        "transformer-heads": 16,
        "transformer-dim-ffn": 4096,
        "transformer-dropout": 0.1,
        "learn-rate": 2e-4,
        "lr-warmup": 8000,
        "lr-decay-inv-sqrt": 8000,
        "label-smoothing": 0.1,
        "optimizer-params": [0.9, 0.998, 1e-9],
        "max-length": 100,
        "beam-size": 8,
        "normalize": 1.0,
    },
}

# Options of Marian about machines, logs and files: leaving them out does not change what is learned.
# fmt: off
HARMLESS = frozenset(
    {
        "workspace", "devices", "num-devices", "cpu-threads", "data-threads", "mini-batch-fit",
        "mini-batch-fit-step", "sync-sgd", "sharding", "fp16", "cost-scaling", "quiet", "quiet-translation",
        "log", "log-level", "log-time-zone", "tempdir", "sqlite", "shuffle-in-ram", "overwrite", "keep-best",
        "no-restore-corpus", "valid-reset-stalled", "disp-first", "disp-label-counts", "relative-paths",
        "model", "vocabs", "train-sets", "valid-sets", "valid-translation-output", "valid-log", "tsv",
        "tsv-fields", "ignore-model-config", "sigterm", "gradient-checkpointing", "maxi-batch-sort",
        "sentencepiece-options", "sentencepiece-max-lines", "dim-vocabs",
    }
)
# fmt: on

# Options of which Limbeck does one thing only: that value is accepted, any other would change the result.
FIXED: dict[str, frozenset[str]] = {
    "type": frozenset({"transformer"}),
    "optimizer": frozenset({"adam"}),
    "cost-type": frozenset({"ce-mean-words"}),
    "early-stopping-on": frozenset({"first"}),
    "shuffle": frozenset({"data", "batches"}),
    "lr-decay": frozenset({"0", "0.0"}),
    "lr-warmup-start-rate": frozenset({"0", "0.0"}),
    "word-penalty": frozenset({"0", "0.0"}),
    "allow-unk": frozenset({"false", "False"}),
}

_ALLOWED: dict[str, frozenset[str]] = {
    "precision": frozenset({"auto", "float32", "bfloat16", "float16"}),
    "guided-alignment-cost": frozenset({"ce", "mse"}),
    "transformer-ffn-activation": frozenset({"relu", "swish", "gelu"}),
    "valid-metrics": frozenset({"chrf", "bleu-detok", "ce-mean-words", "perplexity"}),
}


def load_presets() -> dict[str, dict[str, Any]]:
    """The presets of presets.yml: name to option values."""
    presets: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("presets.yml").read_text("utf-8"))
    return presets


def parse_options(preset: str, given: Mapping[str, Any] | None = None) -> TrainingOptions:
    """The options of a preset with the given ones (Marian's names, values of any spelling) laid over them.

    A `task` (transformer-base or transformer-big) stands for the options it sets; options beside it win over it.
    Raises UserError for unknown options and presets, malformed values and contradictory combinations.
    """
    presets = load_presets()
    if preset not in presets:
        raise UserError(f"unknown preset {preset!r}: the presets are {', '.join(sorted(presets))}")
    given = {str(name).removeprefix("--").replace("_", "-"): value for name, value in (given or {}).items()}
    values = {**_expand_task(presets[preset]), **_expand_task(given)}
    known = {_option_name(field.name): field for field in dataclasses.fields(TrainingOptions)}
    ignored = sorted(name for name in values if name in HARMLESS)
    if ignored:
        logger.warning(f"options that have no meaning here and do not change the result: {', '.join(ignored)}")
    parsers = _parsers()
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        if name in HARMLESS:
            continue
        if name in FIXED:
            if str(value) not in FIXED[name]:
                raise UserError(f"training option {name}: {value!r} is not supported, only {' or '.join(FIXED[name])}")
            continue
        if name not in known:
            near = difflib.get_close_matches(name, [*known, "task", *HARMLESS, *FIXED], 1)
            hint = f": did you mean {near[0]}?" if near else ": remove it, for it may change the result"
            raise UserError(f"unknown training option {name}{hint}")
        parsed[known[name].name] = _parse(name, value, parsers[known[name].name])
    options = TrainingOptions(**parsed)
    check_options(options)
    return options


def check_options(options: TrainingOptions) -> None:
    """Raise UserError when options contradict each other or lie outside their range."""
    o = options
    problems = {
        "tied-embeddings-all and tied-embeddings exclude each other": bool(o.tied_embeddings_all and o.tied_embeddings),
        "label-smoothing must lie between 0 and 1": not 0 <= o.label_smoothing < 1,
        "exponential-smoothing must lie between 0 and 1": not 0 <= o.exponential_smoothing < 1,
        "learn-rate must be above 0": o.learn_rate <= 0,
        "clip-norm must not be below 0 (0 is no clipping)": o.clip_norm < 0,
        "optimizer-params are three numbers: beta1, beta2 and epsilon of Adam": len(o.optimizer_params) != 3,
        "lr-decay-inv-sqrt takes one or two amounts of the same unit": (
            len(o.lr_decay_inv_sqrt) > 2 or len({amount.unit for amount in o.lr_decay_inv_sqrt}) > 1
        ),
        "optimizer-delay, mini-batch-words, maxi-batch, max-length, valid-mini-batch, valid-max-length and beam-size "
        "must be at least 1": (
            min(o.optimizer_delay, o.mini_batch_words, o.maxi_batch, o.max_length) < 1
            or min(o.valid_mini_batch, o.valid_max_length, o.beam_size) < 1
        ),
        f"max-length {o.max_length} does not fit into a micro-batch: mini-batch-words {o.mini_batch_words} divided by "
        f"optimizer-delay {o.optimizer_delay} must be above max-length": (
            o.mini_batch_words // max(o.optimizer_delay, 1) <= o.max_length
        ),
        "sentencepiece-alphas are at most two numbers, for source and target": len(o.sentencepiece_alphas) > 2,
        "valid-freq must be above 0": o.valid_freq.count <= 0,
        "valid-metrics must name at least one metric": not o.valid_metrics,
        "training would never end: give early-stopping, after, after-epochs or after-batches": (
            o.early_stopping < 1 and not o.limits()
        ),
    }
    wrong = [problem for problem, holds in problems.items() if holds]
    if wrong:
        raise UserError(f"training options: {'; '.join(wrong)}")


def model_config(options: TrainingOptions, dim_vocabs: tuple[int, int], shared_vocab: bool) -> ModelConfig:
    """The architecture that the options describe, for vocabularies of these sizes.

    Unless the options say how to tie embeddings, one matrix serves source, target and output when the vocabulary is
    shared; otherwise the target's serves the output too. Raises UserError for architectures that are not supported.
    """
    tie_all = options.tied_embeddings_all
    if tie_all is None:
        tie_all = shared_vocab and not options.tied_embeddings and not options.tied_embeddings_src
    for name, tied in (("tied-embeddings-all", tie_all), ("tied-embeddings-src", options.tied_embeddings_src)):
        if tied and not shared_vocab:
            raise UserError(f"{name} needs one joint vocabulary for both sides, but the vocabularies differ")
    tie_output = options.tied_embeddings
    if tie_output is None:
        tie_output = not tie_all and not options.tied_embeddings_src
    architecture = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(ModelConfig)
        if hasattr(options, field.name)
    }
    return ModelConfig(
        **{
            **architecture,
            "dim_vocabs": dim_vocabs,
            "tied_embeddings_all": tie_all,
            "tied_embeddings": bool(tie_output) and not tie_all,
        }
    )


def _expand_task(values: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(values)
    task = values.pop("task", None)
    if task is None:
        return values
    if task not in TASKS:
        raise UserError(f"training option task: {task!r} is not one of {', '.join(sorted(TASKS))}")
    return {**TASKS[task], **values}


def _option_name(field: str) -> str:
    return field.replace("_", "-")


def _plain(value: Any) -> Any:
    if isinstance(value, Amount):
        return (
            f"{value.count:.0f}{value.unit[0]}" if value.count == int(value.count) else f"{value.count}{value.unit[0]}"
        )
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _parse(name: str, value: Any, parser: Callable[[Any], Any]) -> Any:
    try:
        parsed = parser(value)
    except (ValueError, TypeError) as error:
        raise UserError(f"training option {name}: {value!r} is not {error}") from None
    if name in _ALLOWED:
        for item in parsed if isinstance(parsed, tuple) else (parsed,):
            if item not in _ALLOWED[name]:
                raise UserError(f"training option {name}: {item!r} is not one of {', '.join(sorted(_ALLOWED[name]))}")
    return parsed


@functools.cache
def _parsers() -> dict[str, Callable[[Any], Any]]:
    """A parser for each field, by its type."""
    by_type: dict[Any, Callable[[Any], Any]] = {
        int: _parse_int,
        float: _parse_float,
        bool: _parse_bool,
        tuple[int, ...]: lambda value: tuple(_parse_int(item) for item in _items(value)),
        bool | None: _parse_bool,
        str: _parse_text,
        Amount: _parse_amount,
        tuple[float, ...]: lambda value: tuple(_parse_float(item) for item in _items(value)),
        tuple[str, ...]: lambda value: tuple(_parse_text(item) for item in _items(value)),
        tuple[Amount, ...]: lambda value: tuple(_parse_amount(item) for item in _items(value)),
    }
    parsers = {name: by_type[hint] for name, hint in get_type_hints(TrainingOptions).items()}
    # In a Marian config this is the path of an alignment file, or "none".
    parsers["guided_alignment"] = _parse_guided_alignment
    return parsers


def _parse_amount(value: Any) -> Amount:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("an amount such as 16000, 3000u, 20e or 10Mt")
    return Amount.parse(str(value).removesuffix(".0"))


def _parse_int(value: Any) -> int:
    try:
        amount = _parse_amount(value)
    except ValueError:
        raise ValueError("a whole number") from None
    if amount.unit != "updates" or amount.count != int(amount.count) or str(value).endswith("u"):
        raise ValueError("a whole number")
    return int(amount.count)


def _parse_float(value: Any) -> float:
    number = finite_number(value)
    if number is None:
        raise ValueError("a number")
    return number


def _parse_bool(value: Any) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "yes", "on", "1"):
        return True
    if text in ("false", "no", "off", "0"):
        return False
    raise ValueError("true or false")


def _parse_guided_alignment(value: Any) -> bool:
    try:
        return _parse_bool(value)
    except ValueError:
        return str(value).strip().lower() not in ("", "none")


def _parse_text(value: Any) -> str:
    if isinstance(value, str | int | float):
        return str(value).strip()
    raise ValueError("text")


def _items(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    return str(value).replace(",", " ").split() if isinstance(value, str) else [value]
