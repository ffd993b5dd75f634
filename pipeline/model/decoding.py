"""Decoding options under Marian's names, as training configs have them in their decoding sections.

Values arrive as numbers and booleans, or as texts of them ("12", "true").
"""

import dataclasses
import difflib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.common.errors import UserError
from pipeline.common.values import finite_number

logger = logging.getLogger(__name__)

LENGTH_FACTOR = 2.0
LONGEST = 1000  # pieces; position tables of exported models have 1024 rows

PRECISIONS = ("float32", "float16", "int8")

# How Marian lays its work out in memory. Nothing here depends on them, so a config may keep them.
_LAYOUT = ("maxi-batch", "maxi-batch-sort", "maxi-batch-words", "mini-batch", "workspace", "cpu-threads", "devices")
_LAYOUT_FLAGS = ("quiet", "quiet-translation", "max-length-crop", "n-best", "skip-cost", "log-level")


@dataclass(frozen=True)
class Sampling:
    """Draw every piece at random instead of searching: among the `top_k` likeliest (0: all), from probabilities of
    logits divided by `temperature`. One seed gives the same translations of the same batch on the same machine."""

    top_k: int = 0
    temperature: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.top_k < 0 or not 0 < self.temperature < math.inf:
            raise UserError(
                f"sampling among the best {self.top_k} at temperature {self.temperature}: the number must be at least "
                "0 (0 samples among all) and the temperature above 0"
            )


@dataclass(frozen=True)
class DecodingOptions:
    """How to translate.

    `max_length` counts source pieces with the end of sentence: longer sources are cut, and counted. A translation is
    cut at `max_length_factor` times its source's length. With `sampling` (`output-sampling` and `seed` in a config)
    translations are drawn at random, one by one, and the beam must be 1. `mini_batch_words` is the size of a batch on a
    GPU, in source pieces with padding; on a CPU small batches are faster and it only makes them smaller.
    """

    beam_size: int = 4
    normalize: float = 1.0
    max_length: int = 200
    max_length_factor: float = LENGTH_FACTOR
    mini_batch_words: int = 8000
    allow_unk: bool = False
    precision: str = "float32"
    sampling: Sampling | None = None

    def to_json(self) -> dict[str, Any]:
        """What decides a translation, under Marian's names."""
        names = ("beam_size", "normalize", "max_length", "max_length_factor", "allow_unk")
        values = {name.replace("_", "-"): getattr(self, name) for name in names}
        return values | ({"sampling": dataclasses.asdict(self.sampling)} if self.sampling else {})


def decoding_options(values: Mapping[str, Any], **defaults: Any) -> DecodingOptions:
    """Options of a mapping such as {"beam-size": 8} over the defaults (`beam_size=1` …).

    Raises UserError for unknown names and impossible values.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"decoding options must be a mapping such as {{'beam-size': 4}}, found {values!r}")
    settings: dict[str, Any] = dict(defaults)
    ignored, seed = [], Sampling.seed
    for key, value in values.items():
        if key in ("beam-size", "max-length", "mini-batch-words"):
            settings[_name(key)] = _whole_number(key, value)
        elif key in ("normalize", "max-length-factor"):
            settings[_name(key)] = _number(key, value)
        elif key == "allow-unk":
            settings["allow_unk"] = _boolean(key, value)
        elif key == "precision":
            if value not in PRECISIONS:
                raise UserError(f"decoding option precision is {value!r}: one of {', '.join(PRECISIONS)}")
            settings["precision"] = value
        elif key == "fp16":
            if _boolean(key, value):
                settings.setdefault("precision", "float16")
        elif key == "output-sampling":
            settings["sampling"] = _sampling(value)
        elif key == "seed":
            seed = _whole_number(key, value)
        elif key == "word-penalty" and _number(key, value) == 0:
            continue
        elif key in _LAYOUT + _LAYOUT_FLAGS:
            ignored.append(key)
        else:
            raise _unknown(key)
    if ignored:
        logger.warning(f"decoding options without an effect here: {', '.join(sorted(ignored))}")
    if settings.get("sampling"):
        settings["sampling"] = dataclasses.replace(settings["sampling"], seed=seed)
    options = DecodingOptions(**settings)
    if options.sampling and options.beam_size != 1:
        raise UserError(f"decoding option output-sampling needs beam-size 1, found {options.beam_size}")
    if options.max_length > LONGEST:
        raise UserError(f"decoding option max-length is {options.max_length}: at most {LONGEST} pieces")
    if options.max_length_factor <= 0:
        raise UserError("decoding option max-length-factor must be above 0")
    return options


def _unknown(key: str) -> UserError:
    known = [
        *(name.replace("_", "-") for name in DecodingOptions.__dataclass_fields__ if name != "sampling"),
        *("output-sampling", "seed"),
        *_LAYOUT,
        *_LAYOUT_FLAGS,
    ]
    near = difflib.get_close_matches(str(key), known, n=1)
    hint = f": did you mean {near[0]!r}?" if near else f": known are {', '.join(sorted(known))}"
    return UserError(f"unknown decoding option {key!r}{hint}")


def _sampling(value: Any) -> Sampling | None:
    """Marian's spellings: a boolean, "full", "full 0.8", "topk 10", ["topk", 10, 0.8]; the last is a temperature."""
    words = [str(word) for word in value] if isinstance(value, list | tuple) else str(value).lower().split()
    try:
        match words:
            case ["true" | "full"]:
                return Sampling()
            case ["false" | "none"]:
                return None
            case ["full", temperature]:
                return Sampling(temperature=float(temperature))
            case ["topk", count]:
                return Sampling(int(count))
            case ["topk", count, temperature]:
                return Sampling(int(count), float(temperature))
    except ValueError:
        pass
    raise UserError(f"decoding option output-sampling is {value!r}: full, 'full 0.8', 'topk 10' or 'topk 10 0.8'")


def _name(key: str) -> str:
    return key.replace("-", "_")


def decoder_yml(model: str, vocabs: Sequence[str], beam_size: int = 4, normalize: float = 1.0) -> str:
    """The text of Marian's decoder configuration, for a model and its vocabularies that lie beside it."""
    decoder = {
        "relative-paths": True,
        "models": [model],
        "vocabs": list(vocabs),
        "beam-size": beam_size,
        "normalize": normalize,
        "word-penalty": 0,
    }
    return yaml.safe_dump(decoder, sort_keys=False)


def _whole_number(key: str, value: Any) -> int:
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UserError(f"decoding option {key} is {value!r}: a whole number of at least 1 is needed")
    return number


def _number(key: str, value: Any) -> float:
    number = finite_number(value)
    if number is None or number < 0:
        raise UserError(f"decoding option {key} is {value!r}: a number of at least 0 is needed")
    return number


def _boolean(key: str, value: Any) -> bool:
    texts = {"true": True, "false": False}
    boolean = texts.get(value.strip().lower(), value) if isinstance(value, str) else value
    if not isinstance(boolean, bool):
        raise UserError(f"decoding option {key} is {value!r}: true or false is needed")
    return boolean
