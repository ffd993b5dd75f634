"""Teachers that run along with their student's training, on the same batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.common.errors import UserError
from pipeline.model.formats import npz
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import Vocab, check_same_pieces
from pipeline.train.batches import Batch
from pipeline.train.compute import Compute
from pipeline.train.initialise import find_model

_SEQUENCE_LEVEL = "sequence-level distillation (the recipe `sequence`) works with any teacher"


@dataclass(frozen=True)
class TeacherStates:
    """What the teachers made of a batch with N real target tokens: the states [N, d] of each that predict them, and of
    the first teacher the outputs [B, S, d] of every encoder layer and [B, T, d] of every decoder layer.
    """

    last: Sequence[Tensor]
    encoder: Sequence[Tensor]
    decoder: Sequence[Tensor]


class Teachers:
    """One teacher, or an ensemble that votes with the mean of its log-probabilities, as beam search does.

    Teachers never change: they drop nothing out and no gradient reaches them. They compute in the precision of
    `compute`, like their student.
    """

    def __init__(self, models: Sequence[Transformer], compute: Compute) -> None:
        self.models = [model.to(compute.device).eval().requires_grad_(False) for model in models]
        self.compute = compute

    @torch.no_grad()
    def states(self, batch: Batch) -> TeacherStates:
        """Run the teachers over a batch, each target predicted from those before it in the batch."""
        last: list[Tensor] = []
        encoder: list[Tensor] = []
        decoder: list[Tensor] = []
        with self.compute.autocast():
            for number, model in enumerate(self.models):
                hidden = (encoder, decoder) if number == 0 else (None, None)
                memory = model.encode(batch.src, batch.src_mask, hidden[0])
                states, _ = model.decode(batch.trg, memory, batch.src_mask, hidden=hidden[1])
                last.append(states[batch.trg_mask])
        return TeacherStates(last, encoder, decoder)

    @torch.no_grad()
    def scores(self, states: TeacherStates, part: slice) -> Tensor:
        """Unnormalised log-probabilities [n, V], float32, of the next piece for a part of the N tokens."""
        with self.compute.autocast():
            logits = [model.logits(last[part]) for model, last in zip(self.models, states.last, strict=True)]
        if len(logits) == 1:
            return logits[0].float()
        return torch.stack([scores.float().log_softmax(-1) for scores in logits]).mean(0)


def load_teachers(
    paths: Sequence[Path],
    vocab_paths: tuple[Path, Path],
    teacher_vocab_paths: tuple[Path, Path] | None,
    compute: Compute,
) -> Teachers:
    """Load the teachers of a student with the vocabularies `vocab_paths` (source, target).

    A path is an npz file or a model directory. The teachers' vocabularies are `teacher_vocab_paths`, or else those
    beside the model under the names of the student's. Raises UserError when a teacher's pieces are not the student's:
    only then does a number mean the same piece to both.
    """
    vocabs = Vocab.load(vocab_paths[0]), Vocab.load(vocab_paths[1])
    models = []
    for path in paths:
        file = find_model(path)
        config = npz.load_config(file)
        beside = file.parent / vocab_paths[0].name, file.parent / vocab_paths[1].name
        found = teacher_vocab_paths or beside
        for side, vocab, theirs, size in zip(("source", "target"), vocabs, found, config.dim_vocabs, strict=True):
            if size != len(vocab):
                raise UserError(
                    f"the teacher {path} has {size} {side} pieces, the student {len(vocab)}: they must share a "
                    f"vocabulary to be compared piece by piece; {_SEQUENCE_LEVEL}"
                )
            if not theirs.exists():
                raise UserError(
                    f"the vocabulary of the teacher {path} is not beside it ({theirs.name}): "
                    "give --teacher-vocab, the .spm files of its source and target language"
                )
            check_same_pieces(
                Vocab.load(theirs),
                vocab,
                f"the {side} vocabulary of the teacher {path}",
                "the student's",
                _SEQUENCE_LEVEL,
            )
        models.append(npz.load(file))
    return Teachers(models, compute)
