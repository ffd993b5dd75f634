"""The vocabularies that an export is given."""

from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.model.config import ModelConfig
from pipeline.model.vocab import Vocab


def load_vocabs(paths: tuple[Path, Path], config: ModelConfig) -> tuple[Vocab, Vocab]:
    """The vocabularies of the source and the target. Raises UserError when they are not those of the model."""
    loaded = Vocab.load(paths[0]), Vocab.load(paths[1])
    for vocab, path, size in zip(loaded, paths, config.dim_vocabs, strict=True):
        if len(vocab) != size:
            raise UserError(f"{path} has {len(vocab)} pieces, but the model was trained with {size}")
    return loaded
