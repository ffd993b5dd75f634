"""The files that training leaves behind."""

import shutil
from pathlib import Path

from pipeline.model.decoding import decoder_yml
from pipeline.train.checkpoint import MODEL_FILE, OPTIMIZER_FILE, PROGRESS_FILE
from pipeline.train.options import TrainingOptions
from pipeline.train.report import JSONL_FILE, TENSORBOARD_FOLDER


def write_output(
    output: Path,
    best_model: Path,
    best_metric: str,
    checkpoint: Path,
    checkpoint_folder: Path,
    vocabs: tuple[Path, Path],
    languages: tuple[str, str],
    options: TrainingOptions,
) -> None:
    """Write the model directory: the best model with its decoder configuration, the vocabularies, the training log,
    and the newest checkpoint, from which training can be continued elsewhere.
    """
    output.mkdir(parents=True, exist_ok=True)
    model_name = f"final.model.npz.best-{best_metric}.npz"
    vocab_names = [f"vocab.{language}.spm" for language in languages]
    _copy(best_model, output / model_name)
    for vocab, name in zip(vocabs, vocab_names, strict=True):
        _copy(vocab, output / name)
    _write_text(
        output / f"{model_name}.decoder.yml", decoder_yml(model_name, vocab_names, options.beam_size, options.normalize)
    )
    _copy(checkpoint_folder / JSONL_FILE, output / JSONL_FILE)
    shutil.copytree(checkpoint_folder / TENSORBOARD_FOLDER, output / TENSORBOARD_FOLDER, dirs_exist_ok=True)
    for name in (MODEL_FILE, OPTIMIZER_FILE, PROGRESS_FILE):
        _copy(checkpoint / name, output / name)


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
