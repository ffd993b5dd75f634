"""How a student is taught: the recipes of `experiment.distillation`, and what each value of one means.

This module knows no tensors, so that a config is checked before anything runs. `docs/distillation.md` says when to take
which recipe.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.common.errors import UserError
from pipeline.common.values import finite_number
from pipeline.train.options import TrainingOptions

HIDDEN_LOSSES = ("cosine", "mse")
SIDES = ("encoder", "decoder")
LAYER_MAPS = ("even", "last")
LAYER_CHOICES = ("all", "alternating", "every N", "first", "last")
FREEZABLE = ("embeddings", "encoder", "decoder")

LayerMap = str | dict[str, tuple[int, ...]]
LayerChoice = str | tuple[int, ...]


@dataclass(frozen=True)
class Distillation:
    """What a student learns from, besides alignments. Weights multiply costs per token; 0 leaves a term out.

    `nll_weight` is that of the targets' label-smoothed likelihood, `word_kd_weight` that of the divergence from the
    teacher's distributions at `temperature`: of a teacher that runs along, or, with `top_k`, of the k likeliest pieces
    that one stored earlier. `encoder_hidden_weight` and `decoder_hidden_weight` are those of the mean difference of
    mapped layers (`layer_map`), measured by `hidden_loss`. `original_fraction` of the pairs come from the original
    corpus, the others from the distilled one.
    """

    recipe: str = "sequence"
    nll_weight: float = 1.0
    word_kd_weight: float = 0.0
    temperature: float = 1.0
    top_k: int = 0
    encoder_hidden_weight: float = 0.0
    decoder_hidden_weight: float = 0.0
    hidden_loss: str = "cosine"
    layer_map: LayerMap = "even"
    original_fraction: float = 0.0

    @property
    def hidden_weights(self) -> dict[str, float]:
        """The weights of the hidden-state terms that are asked for, by side."""
        weights = {"encoder": self.encoder_hidden_weight, "decoder": self.decoder_hidden_weight}
        return {side: weight for side, weight in weights.items() if weight}

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher runs along with training."""
        return bool(self.hidden_weights) or (self.word_kd_weight > 0 and not self.top_k)

    @property
    def corpora(self) -> tuple[str, ...]:
        """The corpora that it reads, the main one first."""
        if self.original_fraction == 1:
            return ("original",)
        return ("distilled", "original") if self.original_fraction else ("distilled",)

    def check_corpora(self, names: Sequence[str]) -> None:
        """Raise UserError unless these are the corpora that are read."""
        if set(names) != set(self.corpora):
            raise UserError(
                f"the distillation recipe {self.recipe} with original-fraction {self.original_fraction:g} reads the "
                f"corpora {' and '.join(self.corpora)}, but {' and '.join(names)} are given"
            )

    def curriculum(self) -> list[dict[str, Any]]:
        """One stage that mixes the corpora by their probabilities until training ends, as `--curriculum` takes it."""
        fraction = self.original_fraction
        weights = {"distilled": 1 - fraction, "original": fraction}
        return [{"mix": {name: weights[name] for name in self.corpora}, "until": None}]

    def to_json(self) -> dict[str, Any]:
        """Plain values under their names in a config: two students with the same are taught alike."""
        return {_key(name): value for name, value in dataclasses.asdict(self).items()}


# What each recipe sets besides the defaults above. The weights of `triple` are DistilBERT's 2 : 5 : 1, the proportions
# of `interpolation` and `low-data` those of NeMo's distillation guide (gold and teacher's text 2 : 1 and 1 : 2).
RECIPES: dict[str, dict[str, Any]] = {
    "sequence": {},
    "word": {"nll_weight": 0.5, "word_kd_weight": 0.5, "original_fraction": 1.0},
    "interpolation": {"original_fraction": 0.66},
    "hybrid": {"nll_weight": 0.5, "word_kd_weight": 0.5},
    "triple": {
        "nll_weight": 0.25,
        "word_kd_weight": 0.625,
        "temperature": 2.0,
        "encoder_hidden_weight": 0.125,
        "decoder_hidden_weight": 0.125,
        "layer_map": "last",
    },
    "low-data": {"nll_weight": 0.5, "word_kd_weight": 0.5, "original_fraction": 0.34},
}

# Training options of a recipe, between the preset's and those that are given. Little data is learned by heart unless
# units drop out and targets are smoothed, even by a student too small to overfit otherwise (Sennrich and Zhang 2019,
# "Revisiting low-resource neural machine translation").
RECIPE_OPTIONS: dict[str, dict[str, Any]] = {"low-data": {"transformer-dropout": 0.2, "label-smoothing": 0.1}}


def parse_distillation(values: Mapping[str, Any]) -> Distillation:
    """The distillation that a mapping such as {"recipe": "hybrid", "temperature": 2} describes.

    Values that are given win over the recipe's. Raises UserError for unknown names, impossible values and values that
    contradict each other or would have no effect.
    """
    given = _mapping("distillation", values)
    recipe = given.pop("recipe", "sequence")
    if recipe not in RECIPES:
        raise UserError(f"distillation recipe {recipe!r}{_nearest(recipe, RECIPES)}: one of {', '.join(RECIPES)}")
    fields = {field.name for field in dataclasses.fields(Distillation)} - {"recipe"}
    settings = dict(RECIPES[recipe])
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in fields:
            raise _unknown("distillation", key, [*map(_key, sorted(fields)), "recipe"])
        settings[name] = _setting(name, value)
    distillation = Distillation(recipe, **settings)
    _check(distillation, {key.replace("-", "_") for key in given})
    return distillation


def _setting(name: str, value: Any) -> Any:
    key = f"distillation {_key(name)}"
    if name == "hidden_loss":
        if value not in HIDDEN_LOSSES:
            raise UserError(f"{key} {value!r}: one of {', '.join(HIDDEN_LOSSES)}")
        return value
    if name == "layer_map":
        return _layer_map(value)
    if name == "top_k":
        number = _number(key, value)
        if number != int(number) or number < 0:
            raise UserError(f"{key} {value!r}: a whole number of pieces is needed, such as 8")
        return int(number)
    number = _number(key, value)
    if name == "temperature" and number <= 0:
        raise UserError(f"{key} {value!r}: it must be above 0")
    if name == "original_fraction" and number > 1:
        raise UserError(f"{key} {value!r}: a fraction from 0 (the distilled corpus alone) to 1 (the original one)")
    return number


def _layer_map(value: Any) -> LayerMap:
    if isinstance(value, str) and value in LAYER_MAPS:
        return value
    if not isinstance(value, Mapping) or not value or not value.keys() <= set(SIDES):
        raise UserError(
            f"distillation layer-map {value!r}: {' or '.join(LAYER_MAPS)}, or for encoder and decoder a list with the "
            "teacher's layer for each of the student's (0: none), such as {'encoder': [2, 4, 6]}"
        )
    return {side: _layers(f"distillation layer-map {side}", layers, least=0) for side, layers in value.items()}


def _check(distillation: Distillation, given: set[str]) -> None:
    d = distillation
    weights = (d.nll_weight, d.word_kd_weight, d.encoder_hidden_weight, d.decoder_hidden_weight)
    mapped = set(d.layer_map) if isinstance(d.layer_map, dict) else set(d.hidden_weights)
    problems = {
        "nothing is learned: every weight is 0": not any(weights),
        "temperature says nothing without word-kd-weight": "temperature" in given and not d.word_kd_weight,
        "top-k says nothing without word-kd-weight": d.top_k > 0 and not d.word_kd_weight,
        "top-k distributions are stored at temperature 1": d.top_k > 0 and d.word_kd_weight > 0 and d.temperature != 1,
        "hidden-loss says nothing without encoder-hidden-weight or decoder-hidden-weight": (
            "hidden_loss" in given and not d.hidden_weights
        ),
        "layer-map says nothing without encoder-hidden-weight or decoder-hidden-weight": (
            "layer_map" in given and not d.hidden_weights
        ),
        f"layer-map is of {' and '.join(sorted(mapped))}, hidden weights are of {' and '.join(d.hidden_weights)}": (
            bool(d.hidden_weights) and mapped != set(d.hidden_weights)
        ),
    }
    wrong = [problem for problem, holds in problems.items() if holds]
    if wrong:
        raise UserError(f"distillation ({d.recipe}): {'; '.join(wrong)}")


def check_same_every_time(options: TrainingOptions, augmented: bool = False) -> None:
    """Raise UserError when sentences would be cut otherwise than they were for stored distributions."""
    changing = {
        "sentencepiece-alphas": any(options.sentencepiece_alphas),
        "max-length-crop": options.max_length_crop,
        "augmentation": augmented,
    }
    wrong = [name for name, changes in changing.items() if changes]
    if wrong:
        raise UserError(
            f"stored distributions (top-k) are of each piece of the whole sentence as it is usually cut, but "
            f"{' and '.join(wrong)} would change the pieces: switch {'them' if len(wrong) > 1 else 'it'} off "
            "(marian-args, or --options '{\"sentencepiece-alphas\": 0}'), or let a teacher run along"
        )


def layer_pairs(layer_map: LayerMap, side: str, student_depth: int, teacher_depth: int) -> list[tuple[int, int]]:
    """The (student, teacher) layers, from 1, whose outputs are compared on a side.

    `even` goes through both in step, so that the last layers meet: student layer s of n is compared with teacher layer
    s/n of the way, rounded. Raises UserError for a list that does not fit the two models.
    """
    if layer_map == "last":
        return [(student_depth, teacher_depth)]
    if not isinstance(layer_map, dict):
        halves = 2 * student_depth
        return [
            (layer, max(1, (2 * layer * teacher_depth + student_depth) // halves))
            for layer in range(1, student_depth + 1)
        ]
    layers = layer_map[side]
    if len(layers) != student_depth or max(layers) > teacher_depth or not any(layers):
        raise UserError(
            f"distillation layer-map {side} {list(layers)}: the student's {side} has {student_depth} layers and the "
            f"teacher's {teacher_depth}, so {student_depth} numbers from 0 (none) to {teacher_depth} are needed"
        )
    return [(student, teacher) for student, teacher in enumerate(layers, 1) if teacher]


@dataclass(frozen=True)
class Initialisation:
    """Which layers of a trained model a student begins with, and which of its parts stay as they are.

    With `all` layers it is the whole model. Everything outside the layers (embeddings, output) is copied too.
    """

    encoder_layers: LayerChoice = "all"
    decoder_layers: LayerChoice = "all"
    freeze: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values under their names in a config."""
        return {_key(name): list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}


def parse_initialisation(values: Mapping[str, Any]) -> Initialisation:
    """The initialisation that a mapping such as {"encoder-layers": "alternating", "freeze": ["encoder"]} describes.

    Raises UserError for unknown names and impossible values.
    """
    given = _mapping("initialise", values)
    settings: dict[str, Any] = {}
    for key, value in given.items():
        if key in ("encoder-layers", "decoder-layers"):
            settings[key.replace("-", "_")] = _layer_choice(key, value)
        elif key == "freeze":
            settings["freeze"] = _parts(value)
        else:
            raise _unknown("initialise", key, ["encoder-layers", "decoder-layers", "freeze"])
    return Initialisation(**settings)


def _layer_choice(key: str, value: Any) -> LayerChoice:
    if isinstance(value, str):
        word, _, step = value.partition(" ")
        if (value in LAYER_CHOICES and not step) or (word == "every" and step.isdecimal() and int(step) > 0):
            return value
    elif isinstance(value, Sequence) and value:
        return _layers(f"initialise {key}", value, least=1)
    raise UserError(
        f"initialise {key} {value!r}: {', '.join(LAYER_CHOICES)} (such as every 3), or a list of layers from 1"
    )


def _parts(value: Any) -> tuple[str, ...]:
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or not set(parts) <= set(FREEZABLE):
        raise UserError(f"initialise freeze {value!r}: some of {', '.join(FREEZABLE)}")
    if set(parts) == set(FREEZABLE):
        raise UserError("initialise freeze: with embeddings, encoder and decoder frozen nothing is left to train")
    return tuple(dict.fromkeys(parts))


def chosen_layers(choice: LayerChoice, side: str, depth: int, of: int) -> list[int]:
    """The layers, from 1, of a model with `of` layers on this side that one with `depth` layers begins with.

    `alternating` layers lie as far apart as they can, the first and the last among them (Shleifer and Rush 2020,
    "Pre-trained summarization distillation": 1, 3, 5, 8, 10, 12 of 12); `every N` are N, 2N, …
    Raises UserError when a choice has another number of layers than the student, or names layers that are not there.
    """
    if choice == "all":
        layers = list(range(1, of + 1))
    elif choice == "alternating":
        steps = max(depth - 1, 1)
        layers = [1 + (2 * layer * (of - 1) + steps) // (2 * steps) for layer in range(depth)]
    elif choice == "first":
        layers = list(range(1, min(depth, of) + 1))
    elif choice == "last":
        layers = list(range(max(of - depth, 0) + 1, of + 1))
    elif isinstance(choice, str):
        step = int(choice.removeprefix("every "))
        layers = list(range(step, of + 1, step))
    else:
        layers = list(choice)
    shown = list(choice) if isinstance(choice, tuple) else choice
    if depth > of and not isinstance(choice, tuple):
        raise UserError(f"initialise {side}-layers {shown}: the student has {depth} {side} layers, the model only {of}")
    if len(layers) != depth or max(layers) > of:
        raise UserError(
            f"initialise {side}-layers {shown}: that is {', '.join(map(str, layers)) or 'no layer'} of the model's "
            f"{of} {side} layers, but the student needs {depth}"
        )
    return layers


def _layers(key: str, value: Any, least: int) -> tuple[int, ...]:
    whole = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
    if not whole or any(isinstance(layer, bool) or not isinstance(layer, int) or layer < least for layer in value):
        raise UserError(f"{key} {value!r}: a list of layers is needed, whole numbers from {least}")
    return tuple(value)


def _number(key: str, value: Any) -> float:
    number = finite_number(value)
    if number is None or number < 0:
        raise UserError(f"{key} {value!r}: a number of at least 0 is needed")
    return number


def _mapping(name: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise UserError(f"{name} must be a mapping of names and values, not {values!r}")
    return {str(key).replace("_", "-"): value for key, value in values.items()}


def _unknown(name: str, key: str, known: list[str]) -> UserError:
    return UserError(f"{name} has no {key!r}{_nearest(key, known)}: it has {', '.join(known)}")


def _nearest(key: Any, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(key), list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _key(name: str) -> str:
    return name.replace("_", "-")
