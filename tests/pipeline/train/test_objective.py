"""Gradients of updates, with and without teachers: the same however they are cut into pieces."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_model import tiny_model
from torch import Tensor

from pipeline.common.errors import UserError
from pipeline.model.transformer import Transformer
from pipeline.train.batches import Alignment, Batch, Distributions
from pipeline.train.compute import Compute
from pipeline.train.distillation import Distillation, parse_distillation
from pipeline.train.distiller import Distiller
from pipeline.train.loss import guided_alignment_cost, token_cross_entropy, word_distillation_cost
from pipeline.train.objective import Objective
from pipeline.train.options import TrainingOptions
from pipeline.train.teachers import Teachers

COMPUTE = Compute(torch.device("cpu"), 1)
OPTIONS = TrainingOptions(guided_alignment=True, guided_alignment_weight=0.3, label_smoothing=0.1)


def make_batch(rows: Sequence[tuple[int, int]], seed: int = 1, padding: int = 0) -> Batch:
    """Random sentences of these lengths (source, target), with more padding if wanted; one alignment point a target."""
    rng = torch.Generator().manual_seed(seed)
    src = torch.zeros(len(rows), max(s for s, _ in rows) + padding, dtype=torch.long)
    trg = torch.zeros(len(rows), max(t for _, t in rows) + padding, dtype=torch.long)
    masks = torch.zeros_like(src, dtype=torch.bool), torch.zeros_like(trg, dtype=torch.bool)
    index = []
    for row, (s, t) in enumerate(rows):
        src[row, :s], trg[row, :t] = (
            torch.randint(2, 400, (s,), generator=rng),
            torch.randint(2, 400, (t,), generator=rng),
        )
        masks[0][row, :s], masks[1][row, :t] = True, True
        index += [(row, place, min(place, s - 1)) for place in range(t)]
    alignment = Alignment(torch.tensor(index), torch.ones(len(index)))
    return Batch(src, masks[0], trg, masks[1], alignment)


BATCHES = [make_batch([(7, 9), (5, 6), (7, 2)], 1), make_batch([(12, 11), (3, 12)], 2)]
TOKENS = sum(int(batch.trg_mask.sum()) for batch in BATCHES)


def gradients(
    objective: Objective, batches: Sequence[Batch] = BATCHES, **scale: Any
) -> tuple[dict[str, float], dict[str, Tensor]]:
    for parameter in objective.parameters():
        parameter.grad = None
    costs = objective.backward(batches, TOKENS, **scale)
    modules = [objective.model, *([objective.distiller] if objective.distiller else [])]
    named = [pair for module in modules for pair in module.named_parameters()]
    return costs, {name: value.grad.clone() for name, value in named if value.grad is not None}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float = 1e-4) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        largest = max(float(theirs[name].abs().max()), 1e-3)
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=rtol, atol=rtol * largest, msg=lambda m, n=name: f"{n}: {m}"
        )


def make_objective(student: Transformer, chunk: int = 4, compute: Compute = COMPUTE, **given: Any) -> Objective:
    """An objective of a hybrid or other recipe with `teacher` (a model) if there is one."""
    teacher = given.pop("teacher", None)
    if not given:
        return Objective(student, OPTIONS, compute, chunk=chunk)
    distillation = parse_distillation({name.replace("_", "-"): value for name, value in given.items()})
    teachers = Teachers([teacher] if isinstance(teacher, Transformer) else teacher, compute) if teacher else None
    return Objective(student, OPTIONS, compute, Distiller(distillation, student.config, teachers), chunk)


def plain_gradients(student: Transformer, teacher: Transformer, tau: float) -> tuple[list[float], dict[str, Tensor]]:
    """The same objective as one expression over all logits at once."""
    student.zero_grad(set_to_none=True)
    sums = [0.0, 0.0, 0.0]
    for batch in BATCHES:
        logits, attention = student(batch.src, batch.src_mask, batch.trg, alignment=True)
        with torch.no_grad():
            scores, _ = teacher(batch.src, batch.src_mask, batch.trg)
        assert batch.alignment is not None
        mask = batch.trg_mask
        costs = [
            token_cross_entropy(logits[mask], batch.trg[mask], 0.1),
            guided_alignment_cost(attention, batch.alignment, batch.src_mask, mask, "ce"),
            word_distillation_cost(logits[mask], scores[mask], tau),
        ]
        loss = 0.2 * costs[0] + 0.3 * costs[1] + 0.8 * costs[2]
        (loss / TOKENS).backward()
        sums = [total + float(cost.detach()) for total, cost in zip(sums, costs, strict=True)]
    return sums, {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_chunks_give_the_gradients_of_the_whole(chunk: int) -> None:
    student, teacher = tiny_model(1), tiny_model(2, dim_emb=48, enc_depth=3)
    objective = make_objective(
        student, chunk, recipe="hybrid", nll_weight=0.2, word_kd_weight=0.8, temperature=2, teacher=teacher
    )
    costs, ours = gradients(objective)
    sums, wanted = plain_gradients(student, teacher, 2.0)
    assert list(costs) == ["cost", "alignment-cost", "word-kd"]
    assert list(costs.values()) == pytest.approx(sums, rel=1e-5)
    assert_same(ours, wanted)


@pytest.mark.parametrize("ties", [{}, {"tied_embeddings_all": False}, {"output_omit_bias": True}])
def test_chunks_reach_every_parameter(ties: dict[str, Any]) -> None:
    student = tiny_model(1, **ties)
    _, ours = gradients(make_objective(student, 3))
    _, wanted = gradients(make_objective(student, 1000))
    assert ours.keys() == {name for name, _ in student.named_parameters()}
    assert_same(ours, wanted)


TRIPLE = {
    "recipe": "triple",
    "word_kd_weight": 0.5,
    "encoder_hidden_weight": 0.4,
    "decoder_hidden_weight": 0.6,
}


@pytest.mark.parametrize("hidden_loss", ["cosine", "mse"])
def test_padding_counts_nothing(hidden_loss: str) -> None:
    objective = make_objective(
        tiny_model(1), **TRIPLE, hidden_loss=hidden_loss, layer_map="even", teacher=tiny_model(2)
    )
    rows = [(7, 9), (5, 6), (7, 2)]
    costs, ours = gradients(objective, [make_batch(rows)])
    more_costs, more = gradients(objective, [make_batch(rows, padding=5)])
    assert list(costs) == ["cost", "alignment-cost", "word-kd", "encoder-hidden", "decoder-hidden"]
    assert list(more_costs.values()) == pytest.approx(list(costs.values()), rel=1e-4)
    assert_same(ours, more, 1e-3)


def test_a_student_that_is_its_teacher_learns_nothing_from_it() -> None:
    objective = make_objective(
        tiny_model(1), **TRIPLE | {"recipe": "triple", "nll_weight": 0}, hidden_loss="mse", teacher=tiny_model(1)
    )
    objective.options = TrainingOptions()
    costs, ours = gradients(objective)
    assert costs["cost"] > 1
    assert [costs[name] for name in ("word-kd", "encoder-hidden", "decoder-hidden")] == pytest.approx(
        [0, 0, 0], abs=1e-4
    )
    assert max(float(gradient.abs().max()) for gradient in ours.values()) < 1e-5


def test_weights_add_up() -> None:
    student, teacher = tiny_model(1), tiny_model(2)
    alone = [
        gradients(make_objective(student, teacher=given.pop("teacher", None), **given))[1]
        for given in [
            {"nll_weight": 1.0, "recipe": "sequence"},
            {"recipe": "hybrid", "nll_weight": 0, "word_kd_weight": 1, "teacher": teacher},
            {"nll_weight": 0, "encoder_hidden_weight": 1, "teacher": teacher},
            {"nll_weight": 0, "decoder_hidden_weight": 1, "teacher": teacher},
        ]
    ]
    together = gradients(
        make_objective(
            student,
            nll_weight=0.1,
            word_kd_weight=0.2,
            encoder_hidden_weight=0.3,
            decoder_hidden_weight=0.4,
            teacher=teacher,
        )
    )[1]
    # The alignment's weight stands beside the others and is in each of the four.
    objective = make_objective(student, nll_weight=0.5)
    objective.weights["cost"] = 0.0
    _, aligned = gradients(objective)
    zero = torch.zeros(())
    wanted = {
        name: sum(
            w * (part.get(name, zero) - aligned.get(name, zero))
            for w, part in zip((0.1, 0.2, 0.3, 0.4), alone, strict=True)
        )
        + aligned.get(name, zero)
        for name in together
    }
    assert_same(together, wanted)  # type: ignore[arg-type]


def test_the_gradients_are_scaled_and_the_costs_are_not() -> None:
    objective = make_objective(tiny_model(1), **TRIPLE, teacher=tiny_model(2))
    costs, ours = gradients(objective)
    scaled_costs, scaled = gradients(objective, scale=torch.tensor(1024.0))
    assert scaled_costs == costs
    assert_same({name: value / 1024 for name, value in scaled.items()}, ours)


def test_bfloat16_is_near_float32() -> None:
    half = Compute(torch.device("cpu"), 1, torch.bfloat16)
    costs, ours = gradients(make_objective(tiny_model(1), **TRIPLE, teacher=tiny_model(2)))
    half_costs, theirs = gradients(make_objective(tiny_model(1), compute=half, **TRIPLE, teacher=tiny_model(2)))
    assert list(half_costs.values()) == pytest.approx(list(costs.values()), rel=0.03)
    flat, half_flat = (torch.cat([g[name].flatten() for name in sorted(ours)]) for g in (ours, theirs))
    assert all(gradient.dtype == torch.float32 for gradient in theirs.values())
    assert torch.cosine_similarity(flat, half_flat, dim=0) > 0.99


def test_an_ensemble_is_the_mean_of_log_probabilities() -> None:
    student, models = tiny_model(1), [tiny_model(2), tiny_model(3, enc_depth=1)]
    costs, _ = gradients(make_objective(student, recipe="hybrid", temperature=1.5, teacher=models))
    total = 0.0
    with torch.no_grad():
        for batch in BATCHES:
            scores = torch.stack([m(batch.src, batch.src_mask, batch.trg)[0].log_softmax(-1) for m in models]).mean(0)
            logits, _ = student(batch.src, batch.src_mask, batch.trg)
            total += float(word_distillation_cost(logits[batch.trg_mask], scores[batch.trg_mask], 1.5))
    assert costs["word-kd"] == pytest.approx(total, rel=1e-5)


def test_hidden_states_of_several_teachers_are_not_compared() -> None:
    with pytest.raises(UserError, match="one teacher, not with 2"):
        make_objective(tiny_model(1), recipe="triple", teacher=[tiny_model(2), tiny_model(3)])


def test_projections_bridge_widths_and_learn() -> None:
    objective = make_objective(
        tiny_model(1),
        encoder_hidden_weight=1,
        decoder_hidden_weight=1,
        hidden_loss="mse",
        teacher=tiny_model(2, dim_emb=48, enc_depth=4),
    )
    assert objective.distiller is not None
    assert {name: tuple(value.shape) for name, value in objective.distiller.named_parameters()} == {
        f"{side}_l{layer}_projection": (32, 48) for side in ("encoder", "decoder") for layer in (1, 2)
    }
    first, found = gradients(objective)
    assert all(found[name].abs().max() > 0 for name, _ in objective.distiller.named_parameters())
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    for _ in range(8):
        last, _ = gradients(objective)
        optimizer.step()
    assert last["encoder-hidden"] < 0.8 * first["encoder-hidden"]
    assert last["decoder-hidden"] < 0.8 * first["decoder-hidden"]


def test_teachers_never_change_and_drop_nothing_out() -> None:
    teacher = tiny_model(2, transformer_dropout=0.5).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    objective = make_objective(tiny_model(1), **TRIPLE, teacher=teacher)
    assert gradients(objective)[0] == gradients(objective)[0]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_stored_distributions_stand_in_for_a_teacher() -> None:
    student, teacher = tiny_model(1), tiny_model(2)
    with torch.no_grad():
        stored = []
        for batch in BATCHES:
            logits, _ = teacher(batch.src, batch.src_mask, batch.trg)
            probabilities, ids = logits[batch.trg_mask].softmax(-1).topk(399, dim=-1)
            stored.append(
                Batch(
                    batch.src,
                    batch.src_mask,
                    batch.trg,
                    batch.trg_mask,
                    batch.alignment,
                    Distributions(ids, probabilities),
                )
            )
    costs, ours = gradients(make_objective(student, recipe="hybrid", top_k=399), stored)
    online_costs, online = gradients(make_objective(student, recipe="hybrid", teacher=teacher))
    assert costs["word-kd"] == pytest.approx(online_costs["word-kd"], rel=1e-4)
    assert_same(ours, online, 1e-3)
    with pytest.raises(UserError, match="give --teacher-distributions"):
        gradients(make_objective(student, recipe="hybrid", top_k=399))


def test_a_process_without_pairs_has_costs_of_nothing() -> None:
    objective = make_objective(tiny_model(1), **TRIPLE, teacher=tiny_model(2))
    costs, found = gradients(objective, [])
    assert set(costs.values()) == {0.0} and list(costs) == list(objective.weights)
    assert not found


def test_a_needed_teacher_cannot_be_forgotten() -> None:
    with pytest.raises(ValueError, match="needed"):
        Distiller(Distillation(word_kd_weight=1.0), tiny_model(1).config)
