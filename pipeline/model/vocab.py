"""A SentencePiece vocabulary whose ids are the model's: 0 ends a sentence, 1 is the unknown piece."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from pipeline.common.errors import UserError

EOS_ID = 0
UNK_ID = 1
_LINE_ENDS = str.maketrans("\n\r", "  ")


class Vocab:
    """Text to ids and back. `Vocab.load` makes one."""

    eos_id = EOS_ID
    unk_id = UNK_ID

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        self._processor = processor
        self.all_pieces: list[str] = [processor.id_to_piece(number) for number in range(processor.get_piece_size())]

    @classmethod
    def load(cls, path: str | Path) -> "Vocab":
        """Read a `.spm` file. Raises UserError when it is absent, not SentencePiece, or has other special ids."""
        path = Path(path)
        try:
            model = path.read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"{path} does not exist") from error
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.load_from_serialized_proto(model)
        except RuntimeError as error:
            raise UserError(f"{path} is not a SentencePiece model") from error
        if (processor.eos_id(), processor.unk_id()) != (EOS_ID, UNK_ID):
            raise UserError(
                f"{path} has eos id {processor.eos_id()} and unk id {processor.unk_id()}: "
                "a vocabulary built with --eos_id=0 --unk_id=1 is needed"
            )
        return cls(processor)

    def __len__(self) -> int:
        return len(self.all_pieces)

    def encode(
        self, texts: Sequence[str], add_eos: bool = True, sampling_alpha: float | None = None
    ) -> list[list[int]]:
        """Ids of texts. `sampling_alpha` draws a segmentation at random (Kudo, 2018: subword regularisation) instead
        of taking the best one; smaller values give more varied ones."""
        if not texts:
            return []
        if sampling_alpha is None:
            ids: list[list[int]] = self._processor.encode(list(texts), out_type=int)
        else:
            ids = self._processor.encode(
                list(texts), out_type=int, enable_sampling=True, alpha=sampling_alpha, nbest_size=-1
            )
        if add_eos:
            for sentence in ids:
                sentence.append(EOS_ID)
        return ids

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """Pieces of texts, without the end of sentence; what is unknown is `<unk>`."""
        return [[self.all_pieces[number] for number in sentence] for sentence in self.encode(texts, add_eos=False)]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Text of ids, one line each: pieces spelt in bytes can make line ends, which become spaces."""
        if not ids:
            return []
        texts: list[str] = self._processor.decode([list(sentence) for sentence in ids])
        return [one_line(text) for text in texts]


def one_line(text: str) -> str:
    """The text with spaces for its line ends."""
    return text.translate(_LINE_ENDS)


def with_prefix(texts: Sequence[str], prefix: str) -> list[str]:
    """Texts with a prefix and a space in front, as models want that need a tag (`>>deu<<`) or a task before every
    source; a text without words stays as it is."""
    prefix = prefix.strip()
    return [f"{prefix} {text}" if prefix and text.strip() else text for text in texts]


def is_tag(prefix: str) -> bool:
    """Whether a prefix is the tag of a target language as OPUS-MT spells it: `>>deu<<`."""
    return prefix.strip().startswith(">>") and prefix.strip().endswith("<<")


def check_tag(prefix: str, pieces: Sequence[str], name: str) -> None:
    """Raise UserError when a prefix is a tag that a vocabulary does not have: it would be read letter by letter."""
    tags = [piece.lstrip("▁") for piece in pieces if is_tag(piece.lstrip("▁"))]
    if not is_tag(prefix) or prefix.strip() in tags:
        return
    near = difflib.get_close_matches(prefix.strip(), tags, n=5, cutoff=0.4) or tags[:5]
    raise UserError(
        f"{name} has no tag {prefix.strip()}: " + (f"the nearest are {', '.join(near)}" if near else "it has none")
    )


def load_same(paths: Sequence[Path]) -> Vocab:
    """The vocabulary that several models share, each with its own file. Raises UserError when one differs."""
    vocabs = [Vocab.load(path) for path in paths]
    for path, vocab in zip(paths[1:], vocabs[1:], strict=True):
        check_same_pieces(vocab, vocabs[0], str(path), str(paths[0]), "the models of an ensemble must share it")
    return vocabs[0]


def check_same_pieces(one: Vocab, other: Vocab, name: str, other_name: str, hint: str) -> None:
    """Raise UserError with both sizes and the first piece in which two vocabularies differ."""
    pairs = zip(one.all_pieces, other.all_pieces, strict=False)
    differing = next((number for number, (a, b) in enumerate(pairs) if a != b), None)
    if differing is None and len(one) == len(other):
        return
    number = min(len(one), len(other)) if differing is None else differing
    there, here = (vocab.all_pieces[number] if number < len(vocab) else "nothing" for vocab in (one, other))
    raise UserError(
        f"{name} ({len(one)} pieces) is not {other_name} ({len(other)}): the first difference is piece {number}, "
        f"{there!r} there and {here!r} here; {hint}"
    )
