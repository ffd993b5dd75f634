"""What to train: the command line of the trainer."""

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.augment.augmenter import NO_AUGMENTATION, Augmentation, parse_augmentation
from pipeline.common.command import json_argument
from pipeline.common.errors import UserError
from pipeline.model.quantization import TARGETS, Quantization
from pipeline.train.distillation import (
    RECIPE_OPTIONS,
    Distillation,
    Initialisation,
    check_same_every_time,
    parse_distillation,
    parse_initialisation,
)
from pipeline.train.options import TrainingOptions, load_presets, parse_options
from pipeline.train.quantized import student_architecture

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What to train, on what, and where to put it. Corpora are named source, target and perhaps alignment files.

    `initial` is a model to begin with, in the way of `initialisation`; `continued` the folder of another training's
    checkpoint to go on from. `curriculum` is that of a config, or None for what `teacher_mode` means; `data_workers`
    None leaves their number to the machine. `quantization` is the arithmetic to train in, without the activation
    multipliers, which are still to be found; None is that of floats.
    """

    languages: tuple[str, str]
    corpora: dict[str, tuple[Path, ...]]
    devset: tuple[Path, Path]
    vocabs: tuple[Path, Path]
    teacher_mode: str
    best_metric: str
    options: TrainingOptions
    device: str
    output: Path
    checkpoints: Path
    distillation: Distillation
    teachers: tuple[Path, ...]
    teacher_vocabs: tuple[Path, Path] | None
    initial: Path | None
    initialisation: Initialisation
    continued: Path | None = None
    profile: bool = False
    curriculum: Any = None
    augmentation: Augmentation = NO_AUGMENTATION
    data_workers: int | None = None
    quantization: Quantization | None = None


def parse_job(arguments: Sequence[str] | None, description: str) -> Job:
    """The job of a command line. Raises UserError for options and corpora that cannot be trained on."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.train.train",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m pipeline.train.train --preset student-tiny --src en --trg de "
        "--corpus distilled corpus.en.zst corpus.de.zst corpus.aln.zst --devset devset.en.zst devset.de.zst "
        "--src-vocab vocab.en.spm --trg-vocab vocab.de.spm --best-metric chrf "
        """--options '{"learn-rate": "5e-4", "after": "20e"}' --output-dir student --checkpoint-dir checkpoints""",
    )
    add = parser.add_argument
    add("--preset", required=True, choices=sorted(load_presets()), help="the options to start from (presets.yml)")
    add("--src", required=True, help="source language")
    add("--trg", required=True, help="target language")
    add(
        "--corpus",
        required=True,
        action="append",
        nargs="+",
        metavar="NAME SRC TRG [ALN]",
        help="original, backtranslated or distilled; its two sides, and word alignments; repeatable, main corpus first",
    )
    add("--devset", required=True, nargs=2, type=Path, metavar=("SRC", "TRG"), help="what validations translate")
    add("--src-vocab", required=True, type=Path, help="SentencePiece model of the source language")
    add("--trg-vocab", required=True, type=Path, help="of the target language; the same for a joint vocabulary")
    add("--best-metric", required=True, choices=["chrf", "bleu-detok", "ce-mean-words"], help="chooses the best model")
    add(
        "--teacher-mode",
        choices=["one-stage", "two-stage"],
        default="one-stage",
        help="how back-translations are mixed in",
    )
    add(
        "--options",
        type=json_argument,
        default={},
        help="JSON of training options under Marian's names, or @ and a path",
    )
    add("--seed", type=int, help="of parameters, dropout and the order of the data (default: 1, or that of --options)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: a GPU when there is one")
    add("--output-dir", required=True, type=Path, help="the model directory to write")
    add("--checkpoint-dir", required=True, type=Path, help="where checkpoints are kept and found again")
    add(
        "--distillation",
        type=json_argument,
        metavar="JSON",
        help="""how a student is taught: a recipe, and values that win over its own, such as '{"recipe": "hybrid"}'""",
    )
    add(
        "--teacher",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="MODEL",
        help="models (npz files or model directories) that a student is compared with; several are an ensemble",
    )
    add(
        "--teacher-vocab",
        nargs=2,
        type=Path,
        metavar=("SRC", "TRG"),
        help="the teachers' vocabularies (default: those beside the model)",
    )
    add(
        "--teacher-distributions",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "FILE"),
        help="what pipeline.score.distributions stored for the corpus NAME, for a distillation with top-k",
    )
    add("--init", type=Path, metavar="MODEL", help="a model (npz file or model directory) to begin with")
    add(
        "--continue-from",
        type=Path,
        metavar="FOLDER",
        help="a checkpoint of another training, or its model directory, to go on from with optimizer, schedule and all",
    )
    add(
        "--initialise",
        type=json_argument,
        metavar="JSON",
        help="which layers of --init (or of the first --teacher) to begin with and what to freeze, such as "
        """'{"encoder-layers": "alternating", "decoder-layers": [1, 6], "freeze": ["embeddings"]}'""",
    )
    add(
        "--curriculum",
        type=json_argument,
        help="JSON of stages that mix the corpora by weight, the last one until training ends, such as "
        """'[{"mix": {"original": 3, "backtranslated": 2}, "until": "2e of original"}, {"mix": {"original": 1}}]' """
        "(default: by --teacher-mode)",
    )
    add(
        "--augmentation",
        type=lambda text: text if text in ("defaults", "none") else json_argument(text),
        default="none",
        help="changes made to the text at random: defaults, none, or JSON of changes and chances, such as "
        """'{"upper-case": 0.07, "typos": 0.05}' (default: none)""",
    )
    add(
        "--data-workers",
        type=int,
        help="processes that encode text beside the trainer (default: as many as feed the GPU; none without one)",
    )
    add(
        "--quantization",
        choices=[*TARGETS, "none"],
        default="none",
        help="fine-tune --init, a trained student, in the 8-bit arithmetic of the engine it is for (default: none)",
    )
    add(
        "--quantization-saturation",
        action="store_true",
        help="for browser: with sums of two products saturating in 16 bits, as in WebAssembly; many times slower",
    )
    add("--profile", action="store_true", help="write a trace of a few updates into the model directory")
    given = parser.parse_args(arguments)

    if not isinstance(given.options, dict):
        parser.error("--options must be a JSON object of option names and values")
    distillation = parse_distillation({} if given.distillation is None else given.distillation)
    quantization = _quantization(given)
    architecture = student_architecture(given.init or given.continue_from) if quantization else {}
    recipe_options = RECIPE_OPTIONS.get(distillation.recipe, {})
    options = parse_options(given.preset, {**architecture, **recipe_options, **given.options})
    if given.seed is not None:
        options = dataclasses.replace(options, seed=given.seed)
    if given.src == given.trg:
        raise UserError(f"--src and --trg are both {given.src}: their vocabularies need different file names")
    corpora: dict[str, tuple[Path, ...]] = {}
    for name, *paths in given.corpus:
        if len(paths) not in (2, 3):
            parser.error(f"--corpus {name} needs a name, two sides and perhaps alignments, not {len(paths)} files")
        if options.guided_alignment and len(paths) < 3:
            raise UserError(
                f"guided-alignment needs word alignments for the corpus {name}: give them, or set it to false"
            )
        if name in corpora:
            raise UserError(
                f"the corpus {name} is given twice: merge its files, or name them original and backtranslated"
            )
        corpora[name] = tuple(Path(path) for path in paths)
    augmentation = parse_augmentation(given.augmentation)
    unaligned = [name for name, paths in corpora.items() if len(paths) < 3]
    if unaligned and augmentation.tags:
        if given.augmentation != "defaults":
            raise UserError(f"augmentation: tags need word alignments, but the corpus {unaligned[0]} has none")
        logger.warning(f"training: no inline noise (tags), as the corpus {unaligned[0]} has no word alignments")
        augmentation = dataclasses.replace(augmentation, tags=0.0)
    if not options.guided_alignment and not augmentation.tags:
        corpora = {name: paths[:2] for name, paths in corpora.items()}
    corpora = _with_distributions(corpora, given.teacher_distributions, distillation)
    if distillation.top_k:
        check_same_every_time(options, bool(augmentation))
    if given.data_workers is not None and given.data_workers < 0:
        raise UserError(f"--data-workers {given.data_workers}: it must be 0 (none) or more")
    curriculum = given.curriculum
    if curriculum is None and given.distillation is not None:
        distillation.check_corpora(list(corpora))
        curriculum = distillation.curriculum()
    initialisation = parse_initialisation({} if given.initialise is None else given.initialise)
    initial = given.init
    if given.continue_from and (initial or given.initialise is not None):
        raise UserError("--continue-from brings all parameters: leave --init and --initialise out")
    if given.initialise is not None and initial is None:
        initial = given.teacher[0] if given.teacher else None
        if initial is None:
            raise UserError("--initialise says what to copy, but not from which model: give --init or --teacher")
    if distillation.needs_teacher and not given.teacher:
        raise UserError(f"the distillation recipe {distillation.recipe} compares with a teacher: give --teacher")
    if given.teacher and not distillation.needs_teacher and initial != given.teacher[0]:
        raise UserError(
            f"--teacher is given, but the distillation recipe {distillation.recipe} compares with none: leave it out, "
            "or choose a recipe with word-level or hidden-state terms"
        )
    return Job(
        languages=(given.src, given.trg),
        corpora=corpora,
        devset=tuple(given.devset),
        vocabs=(given.src_vocab, given.trg_vocab),
        teacher_mode=given.teacher_mode,
        best_metric=given.best_metric,
        options=options,
        device=given.device,
        output=given.output_dir,
        checkpoints=given.checkpoint_dir,
        profile=given.profile,
        curriculum=curriculum,
        augmentation=augmentation,
        data_workers=given.data_workers,
        distillation=distillation,
        teachers=tuple(given.teacher) if distillation.needs_teacher else (),
        teacher_vocabs=tuple(given.teacher_vocab) if given.teacher_vocab else None,
        initial=initial,
        initialisation=initialisation,
        continued=given.continue_from,
        quantization=quantization,
    )


def _quantization(given: argparse.Namespace) -> Quantization | None:
    if given.quantization == "none":
        if given.quantization_saturation:
            raise UserError("--quantization-saturation is of the browser's arithmetic: give --quantization browser")
        return None
    if not given.init and not given.continue_from:
        raise UserError(
            f"--quantization {given.quantization} fine-tunes a student that is trained already: give it as --init"
        )
    return Quantization(given.quantization, given.quantization_saturation)


def _with_distributions(
    corpora: dict[str, tuple[Path, ...]], given: Sequence[tuple[str, str]], distillation: Distillation
) -> dict[str, tuple[Path, ...]]:
    """The corpora, each with its file of stored distributions as the last column when the distillation reads them."""
    files = {name: Path(path) for name, path in given}
    if files and not distillation.top_k:
        raise UserError(
            "--teacher-distributions are given, but the distillation does not say to read them: "
            "give top-k, the number of pieces that were stored"
        )
    if unknown := files.keys() - corpora.keys():
        raise UserError(f"--teacher-distributions {min(unknown)}: there is no such --corpus")
    if not distillation.top_k:
        return corpora
    if missing := corpora.keys() - files.keys():
        raise UserError(
            f"distillation top-k reads a teacher's stored distributions, but the corpus {min(missing)} has none: give "
            "--teacher-distributions, as pipeline.score.distributions writes them"
        )
    return {name: (*paths, files[name]) for name, paths in corpora.items()}
