"""Models of every form made ready to translate, and what can be told of them without translating."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.evaluate.decoders import CTranslate2Decoder, Decoder, ExternalDecoder, TorchDecoder, Translator
from pipeline.model import external
from pipeline.model.decoding import DecodingOptions
from pipeline.model.formats import ctranslate2 as ctranslate2_format
from pipeline.model.formats import npz, vocabulary_map
from pipeline.model.formats.directory import whole_directory
from pipeline.model.shortlist import Shortlist, unfit_for_others
from pipeline.model.transformer import parameter_shapes
from pipeline.model.vocab import Vocab, check_tag, load_same


@dataclass(frozen=True)
class Source:
    """What translates: the files of a model (several: of an ensemble), how it decodes, and a folder to convert into."""

    models: Sequence[Path]
    vocabs: tuple[Sequence[Path], Sequence[Path]]  # of source and target; none where the model brings its own
    prefix: str  # text in front of every source
    options: DecodingOptions
    temporary: Path  # holds the converted model.npz from the first loading on
    shortlist: Shortlist | None = None  # what each batch is translated among


def load_translator(source: Source, threads: int) -> Translator:
    """What translates texts with a model, with the vocabularies given or with its own.

    Raises UserError when files are missing or do not fit each other, and when an option cannot be done.
    """
    for path in source.models:
        if not path.exists():
            raise UserError(f"the model {path} does not exist")
    if external.check_models(source.models, source.vocabs):
        if source.shortlist:
            raise unfit_for_others(source.models[0])
        others = ExternalDecoder(source.models[0], source.options, threads, source.prefix)
        return Translator(others, others.model.encode, others.model.decode, others.model.longest)
    vocabs = load_same(source.vocabs[0]), load_same(source.vocabs[1])
    check_tag(source.prefix, vocabs[0].all_pieces, str(source.vocabs[0][0]))
    decoder = load_decoder(source, vocabs, threads)
    return Translator.with_vocabs(decoder, vocabs, source.options, source.prefix)


def load_decoder(source: Source, vocabs: tuple[Vocab, Vocab], threads: int) -> Decoder:
    """The decoder of one model (a model.npz is converted when it is loaded first), or of an ensemble.

    What CTranslate2 does not do (an ensemble, a recurrent decoder, repeatable samples) is done by torch.

    Raises UserError on vocabularies of other sizes, a shortlist that is not of them, and on a directory in an ensemble
    or to be sampled from.
    """
    models, options = source.models, source.options
    if len(models) > 1:
        if directory := next(filter(Path.is_dir, models), None):
            raise UserError(f"{directory} is a directory: the models of an ensemble must be model.npz files")
        return TorchDecoder(models, vocabs, options, source.shortlist)
    if models[0].is_dir():
        if options.sampling:
            raise UserError(f"{models[0]} is a CTranslate2 directory: output-sampling needs a model.npz")
        return _ctranslate2(models[0], source, vocabs, threads)
    if options.sampling or npz.load_config(models[0]).is_recurrent:
        return TorchDecoder(models, vocabs, options, source.shortlist)
    directory = source.temporary / "ctranslate2"
    if not directory.exists():
        ctranslate2_format.save(npz.load(models[0]), directory, (source.vocabs[0][0], source.vocabs[1][0]))
    return _ctranslate2(directory, source, vocabs, threads)


def _ctranslate2(directory: Path, source: Source, vocabs: tuple[Vocab, Vocab], threads: int) -> CTranslate2Decoder:
    if not source.shortlist:
        return CTranslate2Decoder(directory, vocabs, source.options, threads)
    mapped = source.temporary / "ctranslate2-with-shortlist"
    if not mapped.exists():
        shortlist = source.shortlist
        with whole_directory(mapped) as folder:
            vocabulary_map.write(shortlist.path, vocabs, shortlist.first, shortlist.best, folder / vocabulary_map.NAME)
            for file in directory.iterdir():
                if file.name != vocabulary_map.NAME:
                    (folder / file.name).symlink_to(file.resolve())
    return CTranslate2Decoder(mapped, vocabs, source.options, threads, use_vmap=True)


def model_size(models: Sequence[Path]) -> int:
    """Bytes on disk: of model.npz files, or of a CTranslate2 directory's files, without SentencePiece vocabularies and
    the shortlist; of all files of another maker's model."""
    paths = [file for path in models for file in (path.rglob("*") if path.is_dir() else [path])]
    whole = external.is_external(models[0])
    files = [file for file in paths if file.is_file()]
    if not whole:
        files = [file for file in files if file.suffix != ".spm" and file.name != vocabulary_map.NAME]
    return sum(file.stat().st_size for file in files)


def count_parameters(models: Sequence[Path]) -> int | None:
    """Trained parameters of model.npz files together; None for a CTranslate2 directory, which does not tell."""
    if any(path.is_dir() for path in models):
        return None
    return sum(math.prod(shape) for path in models for shape in parameter_shapes(npz.load_config(path)).values())
