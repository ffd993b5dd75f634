from typing import Any

import pytest

from pipeline.common.comparison import TestSet, role


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("teacher-2", "teacher"),
        ("student", "student"),
        ("student-finetuned", "finetuned"),
        ("student-int8", "quantized"),
        ("student-browser", "quantized"),
        ("student-int8-unfinetuned", "unfinetuned"),
        ("backward", "backward"),
        ("opus-mt", "other"),
    ],
)
def test_a_models_name_tells_its_role(name: str, expected: str) -> None:
    assert role({"name": name}) == expected


def test_what_was_quantized_is_compared_with_itself_without_fine_tuning() -> None:
    names = ["teacher-1", "student", "student-finetuned", "student-int8-unfinetuned", "student-int8"]
    metrics: tuple[dict[str, Any], ...] = tuple({"name": name} for name in names)
    steps = [(old["name"], new["name"]) for old, new in TestSet("set", "en", "de", metrics).steps()]
    assert steps == [
        ("teacher-1", "student"),
        ("student", "student-finetuned"),
        ("student-finetuned", "student-int8"),
        ("student", "student-int8-unfinetuned"),
        ("student-int8-unfinetuned", "student-int8"),
        ("teacher-1", "student-int8"),
    ]
