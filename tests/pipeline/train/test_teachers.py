from pathlib import Path

import pytest
import torch
from tiny_model import tiny_files, tiny_model, toy_pairs, vocab_bytes, write_tiny

from pipeline.common.errors import UserError
from pipeline.train.compute import Compute
from pipeline.train.teachers import load_teachers
from pipeline.vocab.build import train

COMPUTE = Compute(torch.device("cpu"), 1)


@pytest.fixture
def student_vocabs(tmp_path: Path) -> tuple[Path, Path]:
    path = tmp_path / "student" / "vocab.spm"
    path.parent.mkdir()
    path.write_bytes(vocab_bytes())
    return path, path


def test_teachers_with_the_same_vocabulary_beside_them_are_loaded(student_vocabs: tuple[Path, Path]) -> None:
    teachers = load_teachers([tiny_files()[0], tiny_files()[0].parent], student_vocabs, None, COMPUTE)
    assert len(teachers.models) == 2
    assert not any(p.requires_grad for model in teachers.models for p in model.parameters())


def test_another_vocabulary_is_refused_with_the_first_difference(
    student_vocabs: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.spm"
    other.write_bytes(train((text.title() for pair in toy_pairs(1500) for text in pair), 400, "nmt_nfkc", ()))
    with pytest.raises(
        UserError,
        match=r"source vocabulary .* \(400 pieces\) is not the student's \(400\): the first difference is piece",
    ) as error:
        load_teachers([tiny_files()[0]], student_vocabs, (other, other), COMPUTE)
    assert "sequence-level distillation (the recipe `sequence`) works with any teacher" in str(error.value)


def test_another_size_is_said_without_looking_at_pieces(student_vocabs: tuple[Path, Path], tmp_path: Path) -> None:
    model, _ = write_tiny(tmp_path, tiny_model(2, dim_vocabs=(392, 392)))
    with pytest.raises(UserError, match=r"has 392 source pieces, the student 400: .* sequence-level distillation"):
        load_teachers([model], student_vocabs, None, COMPUTE)


def test_a_teacher_without_its_vocabulary_is_not_trusted(student_vocabs: tuple[Path, Path], tmp_path: Path) -> None:
    model, vocab = write_tiny(tmp_path, tiny_model(2))
    vocab.unlink()
    with pytest.raises(UserError, match=r"not beside it .* give --teacher-vocab"):
        load_teachers([model], student_vocabs, None, COMPUTE)
    assert load_teachers([model], student_vocabs, student_vocabs, COMPUTE)
