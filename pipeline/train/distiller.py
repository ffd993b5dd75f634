"""The part of the objective that comes from a teacher."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.common.errors import UserError
from pipeline.common.files import sha256
from pipeline.model.config import ModelConfig
from pipeline.train.batches import Batch
from pipeline.train.compute import Compute
from pipeline.train.distillation import Distillation, layer_pairs
from pipeline.train.initialise import find_model
from pipeline.train.job import Job
from pipeline.train.loss import (
    cosine_cost,
    normalised_squares_cost,
    stored_distillation_cost,
    word_distillation_cost,
)
from pipeline.train.teachers import Teachers, TeacherStates, load_teachers

_HIDDEN_COSTS = {"cosine": cosine_cost, "mse": normalised_squares_cost}


class Distiller(nn.Module):
    """Costs of a student against its teachers, or against their stored distributions.

    Where hidden states are compared and the models' widths differ, the student's are multiplied by a learned matrix
    [student's width, teacher's width], one for each pair of layers (Jiao et al. 2020, "TinyBERT"). These matrices are
    the module's parameters: to be trained with the student's, and of no use afterwards.
    """

    def __init__(
        self, distillation: Distillation, student: ModelConfig, teachers: Teachers | None = None, seed: int = 1
    ) -> None:
        """Raises UserError when teachers cannot be compared layer by layer."""
        super().__init__()
        self.distillation, self.teachers = distillation, teachers
        if distillation.needs_teacher != (teachers is not None):
            raise ValueError(f"a teacher is {'needed' if teachers is None else 'not needed'} for {distillation}")
        self.pairs: dict[str, list[tuple[int, int]]] = {}
        if distillation.hidden_weights and teachers is not None:
            if len(teachers.models) > 1:
                raise UserError(f"hidden states can be compared with one teacher, not with {len(teachers.models)}")
            self._map_layers(student, teachers.models[0].config, seed)
            self.to(teachers.compute.device)

    def _map_layers(self, student: ModelConfig, teacher: ModelConfig, seed: int) -> None:
        depths = {"encoder": (student.enc_depth, teacher.enc_depth), "decoder": (student.dec_depth, teacher.dec_depth)}
        generator = torch.Generator().manual_seed(seed)
        for side in self.distillation.hidden_weights:
            self.pairs[side] = layer_pairs(self.distillation.layer_map, side, *depths[side])
            if student.dim_emb == teacher.dim_emb:
                continue
            for layer, _ in self.pairs[side]:
                # Glorot's bounds, like the model's own matrices.
                bound = (6 / (student.dim_emb + teacher.dim_emb)) ** 0.5
                matrix = (torch.rand(student.dim_emb, teacher.dim_emb, generator=generator) * 2 - 1) * bound
                self.register_parameter(f"{side}_l{layer}_projection", nn.Parameter(matrix))

    @property
    def weights(self) -> dict[str, float]:
        """The costs that are added to the student's own, with their weights."""
        weights = {"word-kd": self.distillation.word_kd_weight} if self.distillation.word_kd_weight else {}
        return weights | {f"{side}-hidden": weight for side, weight in self.distillation.hidden_weights.items()}

    def teach(self, batch: Batch) -> TeacherStates | None:
        """What the teachers say of a batch, or None when none runs along."""
        return self.teachers.states(batch) if self.teachers is not None else None

    def word_cost(self, logits: Tensor, lesson: TeacherStates | None, batch: Batch, part: slice) -> Tensor:
        """Word-level distillation of the real target tokens `part` of a batch, whose logits are [n, V]."""
        if self.distillation.top_k:
            if batch.distributions is None:
                raise UserError(
                    "distillation top-k reads stored distributions, but none are given: give --teacher-distributions"
                )
            return stored_distillation_cost(logits, batch.distributions[part])
        assert self.teachers is not None and lesson is not None
        return word_distillation_cost(logits, self.teachers.scores(lesson, part), self.distillation.temperature)

    def hidden_costs(
        self, student: Mapping[str, Sequence[Tensor]], lesson: TeacherStates, batch: Batch
    ) -> dict[str, Tensor]:
        """For each side that is compared the mean over pairs of layers of their cost, summed over real tokens.

        `student` holds the outputs of every layer by side. The encoder's are summed over source tokens.
        """
        teacher = {"encoder": lesson.encoder, "decoder": lesson.decoder}
        masks = {"encoder": batch.src_mask, "decoder": batch.trg_mask}
        cost = _HIDDEN_COSTS[self.distillation.hidden_loss]
        costs: dict[str, Tensor] = {}
        for side, pairs in self.pairs.items():
            terms = []
            for ours, theirs in pairs:
                states = student[side][ours - 1][masks[side]].float()
                projection: Tensor | None = getattr(self, f"{side}_l{ours}_projection", None)
                if projection is not None:
                    states = states @ projection
                terms.append(cost(states, teacher[side][theirs - 1][masks[side]]))
            costs[f"{side}-hidden"] = torch.stack(terms).mean()
        return costs


def make_distiller(job: Job, student: ModelConfig, compute: Compute) -> Distiller | None:
    """What a job's student is compared with, or None when it learns from targets alone, at their full weight."""
    distillation = job.distillation
    if distillation.nll_weight == 1 and not distillation.word_kd_weight and not distillation.hidden_weights:
        return None
    teachers = None
    if job.teachers:
        teachers = load_teachers(job.teachers, job.vocabs, job.teacher_vocabs, compute)
    return Distiller(distillation, student, teachers, job.options.seed)


def taught_by(job: Job) -> dict[str, Any]:
    """What decides, beside options and corpora, what a job's student learns: a checkpoint of another is another's."""
    identity: dict[str, Any] = {}
    if job.distillation != Distillation():
        identity["distillation"] = job.distillation.to_json()
        identity["teachers"] = [sha256(find_model(path)) for path in job.teachers]
    if job.initial is not None:
        identity["init"] = sha256(find_model(job.initial))
        identity["initialise"] = job.initialisation.to_json()
    return identity
