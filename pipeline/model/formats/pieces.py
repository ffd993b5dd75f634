"""SentencePiece models whose ids are the rows of a given list of pieces.

Models of OPUS-MT and their Hugging Face conversions have a SentencePiece model for each side, and beside them a list
of pieces that numbers the rows of the embeddings. Here both become one SentencePiece model per side, which segments as
the original does and whose ids are the rows.
"""

import re
from collections.abc import Sequence

from sentencepiece import sentencepiece_model_pb2

from pipeline.common.errors import UserError
from pipeline.model.vocab import EOS_ID, UNK_ID

EOS, UNK = "</s>", "<unk>"
SPACE = "▁"
_TAG = re.compile(rf"{SPACE}?(>>[^\s<>]+<<)")
_Piece = sentencepiece_model_pb2.ModelProto.SentencePiece
_UNIGRAM = sentencepiece_model_pb2.TrainerSpec.UNIGRAM
_SEGMENTING = (_Piece.NORMAL, _Piece.USER_DEFINED, _Piece.BYTE)


def read_pieces(spm: bytes, name: str) -> list[str]:
    """The pieces of a SentencePiece model in the order of their ids."""
    return [piece.piece for piece in _parse(spm, name).pieces]


def tag(piece: str) -> str | None:
    """The `>>xxx<<` of a piece that chooses a target language, or None for other pieces."""
    found = _TAG.fullmatch(piece)
    return found[1] if found else None


def name_rows(listed: Sequence[str], spm: bytes, name: str) -> list[str]:
    """Pieces as SentencePiece must know them: a tag begins its line, where SentencePiece puts a space before it.

    A tag that the model already has as it is listed stays so.
    """
    proto = _parse(spm, name)
    known = {piece.piece for piece in proto.pieces}
    prefix = SPACE if proto.normalizer_spec.add_dummy_prefix else ""
    return [piece if piece in known or not (found := tag(piece)) else prefix + found for piece in listed]


def unlisted(spm: bytes, rows: Sequence[str], name: str) -> list[str]:
    """Pieces that the model segments into but that have no row."""
    known = set(rows)
    return [p.piece for p in _parse(spm, name).pieces if p.type in _SEGMENTING and p.piece not in known]


def fit(spm: bytes, rows: Sequence[str], name: str) -> bytes:
    """The SentencePiece model with these pieces in this order: row 0 is `</s>`, row 1 `<unk>`.

    Pieces that the model does not know (those of the other side) are unused: no text is segmented into them, but they
    can be decoded. Tags are found in text whole. `rows` must hold every piece of `unlisted`. Raises UserError for a
    model that is not a unigram model and does not know all pieces.
    """
    proto = _parse(spm, name)
    pieces = {piece.piece: piece for piece in proto.pieces}
    fitted = sentencepiece_model_pb2.ModelProto()
    fitted.CopyFrom(proto)
    fitted.ClearField("pieces")
    fitted.DiscardUnknownFields()  # samples with the ids that the original gave
    spec = fitted.trainer_spec
    spec.vocab_size = len(rows)
    spec.eos_id, spec.unk_id, spec.bos_id, spec.pad_id = EOS_ID, UNK_ID, -1, -1
    spec.eos_piece, spec.unk_piece = EOS, UNK
    for row, piece in enumerate(rows):
        known = pieces.get(piece)
        entry = fitted.pieces.add(piece=piece, score=known.score if known else 0.0)
        if row in (EOS_ID, UNK_ID):
            entry.type = _Piece.CONTROL if row == EOS_ID else _Piece.UNKNOWN
        elif tag(piece):
            entry.type = _Piece.USER_DEFINED
        elif known:
            entry.type = known.type if known.type != _Piece.UNKNOWN else _Piece.UNUSED
        elif spec.model_type == _UNIGRAM:
            entry.type = _Piece.UNUSED
        else:
            # In other models a piece without use still takes part in merging, which changes segmentations.
            raise UserError(
                f"{name} is not a unigram model and lacks the piece {piece!r} of its vocabulary: such a pair of a "
                "joint vocabulary and one model for each side cannot be read"
            )
    same = len(fitted.pieces) == len(proto.pieces) and all(
        (one.piece, one.type, one.score) == (two.piece, two.type, two.score)
        for one, two in zip(fitted.pieces, proto.pieces, strict=True)
    )
    return spm if same else bytes(fitted.SerializeToString(deterministic=True))


def _parse(spm: bytes, name: str) -> sentencepiece_model_pb2.ModelProto:
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(spm)
    except Exception as error:  # protobuf's DecodeError; its class differs between implementations
        raise UserError(f"{name} is not a SentencePiece model") from error
    if not proto.pieces:
        raise UserError(f"{name} is not a SentencePiece model")
    return proto
