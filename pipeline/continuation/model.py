"""Fetch a model of an earlier run, or one of OPUS-MT, check it, and write it as the training step would have.

--type default: a model directory as training leaves it (`final.model.npz.best-….npz`, `vocab.{language}.spm`), or the
address of one .npz in it; --type opusmt: a zip file or a directory. The vocabularies are those beside the model, or
else --vocab; when there are both they must be the same. --mode says what is published:

  use       the model, with its decoder.yml and its vocabularies
  init      the same, to begin another training with
  continue  the checkpoint beside the model (model.npz, optimizer.pt, progress.yml), to go on from, and the vocabularies
"""

import argparse
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.common.command import run_command
from pipeline.common.download import MissingError
from pipeline.common.errors import UserError
from pipeline.common.remote import fetch, join, local_path
from pipeline.model.decoding import decoder_yml
from pipeline.model.formats import marian, npz
from pipeline.model.vocab import Vocab, check_same_pieces

EXAMPLE = """examples:
  python -m pipeline.continuation.model --uri https://host/teacher --type default --mode use --src ru --trg en \\
    --model-file final.model.npz.best-chrf.npz --output-dir teacher
  python -m pipeline.continuation.model --uri opus-2020-02-26.zip --type opusmt --mode init --src ru --trg en \\
    --model-file final.model.npz.best-chrf.npz --output-dir teacher
"""

CHECKPOINT_FILES = ("model.npz", "optimizer.pt", "progress.yml")
CHECKPOINT_FOLDER = "checkpoint"
BEST_FILE = "best.npz"  # of a checkpoint: the best model until then

logger = logging.getLogger(__name__)


def bring_model(
    uri: str,
    kind: str,
    mode: str,
    languages: tuple[str, str],
    model_file: str,
    vocabs: tuple[Path, Path] | None,
    output: Path,
) -> None:
    """Fetch, check and write a model that translates `languages`, under the name `model_file`, into a folder.

    Raises UserError when a file is missing or damaged, or the model and its vocabularies do not belong together;
    TransientError when a server cannot be reached now.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".model-", dir=output) as folder:
        fetched = Path(folder)
        found: tuple[Path, Path] | None
        if kind == "opusmt":
            model, found = _opus_model(uri, fetched)
        elif mode == "continue":
            model, found = _checkpoint(uri, fetched, model_file), _vocabs_beside(uri, languages, fetched)
        else:
            model, found = _best_model(uri, fetched, model_file), _vocabs_beside(uri, languages, fetched)
        chosen = _chosen_vocabs(found, vocabs, uri, languages)
        try:
            check_fits(model, chosen, uri)
        except UserError as error:
            raise UserError(str(error).replace(str(model), uri)) from error
        names = [f"vocab.{language}.spm" for language in languages]
        for vocab, name in zip(chosen, names, strict=True):
            shutil.copyfile(vocab, output / name)
        if mode == "continue":
            (fetched / CHECKPOINT_FOLDER).rename(output / CHECKPOINT_FOLDER)
            return
        model.rename(output / model_file)
    (output / f"{model_file}.decoder.yml").write_text(decoder_yml(model_file, names), encoding="utf-8")


def check_fits(model: Path, vocabs: tuple[Path, Path], name: str) -> None:
    """Raise UserError unless a model is whole and has as many rows as its vocabularies have pieces."""
    sizes = npz.load(model).config.dim_vocabs
    for side, size, vocab in zip(("source", "target"), sizes, vocabs, strict=True):
        pieces = len(Vocab.load(vocab))
        if pieces != size:
            raise UserError(
                f"{name} was trained with a {side} vocabulary of {size:,} pieces, but the one given has {pieces:,}: it "
                "needs the vocabulary that it was trained with"
            )


def _best_model(uri: str, folder: Path, model_file: str) -> Path:
    address = uri if _is_npz(uri) else join(uri, model_file)
    logger.info(f"fetching {address}")
    try:
        fetch(address, folder / "fetched.npz")
    except MissingError as error:
        hint = (
            "" if _is_npz(uri) else f": a model directory with {model_file} (experiment.best-model names it) is needed"
        )
        raise UserError(f"{error}{hint}") from error
    return folder / "fetched.npz"


def _checkpoint(uri: str, folder: Path, model_file: str) -> Path:
    if _is_npz(uri):
        raise UserError(f"{uri} is a single file: mode continue needs the directory with {', '.join(CHECKPOINT_FILES)}")
    target = folder / CHECKPOINT_FOLDER
    for name in CHECKPOINT_FILES:
        logger.info(f"fetching {join(uri, name)}")
        try:
            fetch(join(uri, name), target / name)
        except MissingError as error:
            raise UserError(
                f"{error}, and without {name} training cannot go on where it stood: set mode: init to begin a new "
                "training with the model's parameters"
            ) from error
    try:
        fetch(join(uri, model_file), target / BEST_FILE)
    except MissingError:
        logger.info(f"{uri} has no {model_file}: the best model is the last one until a better one is found")
    return target / CHECKPOINT_FILES[0]


def _vocabs_beside(uri: str, languages: tuple[str, str], folder: Path) -> tuple[Path, Path] | None:
    """The vocabularies in a model's directory, each language's own or a joint one; None when there are none."""
    base, mark, query = uri.partition("?")
    directory = f"{base.rpartition('/')[0]}{mark}{query}" if _is_npz(uri) else uri
    for names in ([f"vocab.{language}.spm" for language in languages], ["vocab.spm", "vocab.spm"]):
        paths = [folder / f"{side}.spm" for side in ("source", "target")]
        try:
            for name, path in zip(names, paths, strict=True):
                fetch(join(directory, name), path)
        except MissingError:
            continue
        return paths[0], paths[1]
    return None


def _chosen_vocabs(
    found: tuple[Path, Path] | None, given: tuple[Path, Path] | None, uri: str, languages: tuple[str, str]
) -> tuple[Path, Path]:
    """The vocabularies of the model. Raises UserError when there are none, or two that differ."""
    if found is None and given is None:
        names = " and ".join(f"vocab.{language}.spm" for language in languages)
        raise UserError(f"{uri} has no {names}: give the vocabulary that it was trained with, as continuation.vocab")
    if found and given:
        for side, theirs, ours in zip(("source", "target"), found, given, strict=True):
            check_same_pieces(
                Vocab.load(theirs),
                Vocab.load(ours),
                f"the {side} vocabulary beside {uri}",
                "the one of continuation.vocab",
                "a model needs the vocabulary that it was trained with",
            )
    chosen = found or given
    assert chosen
    return chosen


def _opus_model(uri: str, folder: Path) -> tuple[Path, tuple[Path, Path]]:
    """An OPUS-MT model as npz and as vocabularies whose ids are its rows."""
    path = _fetch_package(uri, folder)
    try:
        model = marian.load(path)
        npz.save(model, folder / "converted.npz")
        return folder / "converted.npz", marian.write_vocabs(path, folder)
    except UserError as error:
        raise UserError(str(error).replace(str(path), uri)) from error


def _fetch_package(uri: str, folder: Path) -> Path:
    local = local_path(uri)
    if local is not None and local.is_dir():
        return local
    if uri.partition("?")[0].endswith(".zip"):
        logger.info(f"fetching {uri}")
        fetch(uri, folder / "model.zip")
        return folder / "model.zip"
    package = folder / "package"
    fetch(join(uri, "decoder.yml"), package / "decoder.yml")
    try:
        decoder = yaml.load((package / "decoder.yml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        named = [*decoder["models"], *decoder["vocabs"]]
    except (UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{join(uri, 'decoder.yml')} names no models and vocabs: it is not an OPUS-MT model") from error
    for name in dict.fromkeys(str(path).rpartition("/")[2] for path in [*named, "source.spm", "target.spm"]):
        logger.info(f"fetching {join(uri, name)}")
        fetch(join(uri, name), package / name)
    return package


def _is_npz(uri: str) -> bool:
    return uri.partition("?")[0].endswith(".npz")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uri", required=True, help="where the model is")
    parser.add_argument("--type", choices=["default", "opusmt"], required=True)
    parser.add_argument("--mode", choices=["use", "init", "continue"], required=True)
    parser.add_argument("--src", required=True, help="the language that the model translates from")
    parser.add_argument("--trg", required=True, help="the language that it translates to")
    parser.add_argument("--model-file", required=True, help="what the model is called in a model directory")
    parser.add_argument("--vocab", nargs=2, type=Path, metavar=("SRC", "TRG"), help="vocabularies of the run")
    parser.add_argument("--output-dir", type=Path, required=True)
    args = parser.parse_args(arguments)
    if args.type == "opusmt" and args.mode == "continue":
        raise UserError(
            "--mode continue: an OPUS-MT model has no state of an optimizer; init begins with its parameters"
        )
    vocabs = tuple(args.vocab) if args.vocab else None
    bring_model(args.uri, args.type, args.mode, (args.src, args.trg), args.model_file, vocabs, args.output_dir)


if __name__ == "__main__":
    run_command(main)
