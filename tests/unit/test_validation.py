"""Validation messages: the field, its value shortened, what would be right; never a prompt."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from agentex.validation import describe


class Inner(BaseModel):
    size: int = Field(default=0, le=3)


class Example(BaseModel):
    """One field of each sort that messages treat apart."""

    name: str = Field(default="", max_length=3)
    inner: list[Inner] = Field(default_factory=list[Inner])
    task_params: dict[str, int] = Field(default_factory=dict[str, int])


def described(value: object) -> str:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(Example).validate_python(value)
    return describe(raised.value.errors())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "long"}, "name is 'long': String should have at most 3 characters"),
        ({"name": "x" * 100}, f"name is '{'x' * 78}…: String should have at most 3 characters"),
        ({"name": ["x"]}, "name: Input should be a valid string"),
        (
            {"inner": [{"size": 1}, {"size": 4}]},
            "inner.1.size is 4: Input should be less than or equal to 3",
        ),
        (
            {"task_params": {"prompt": "secret"}},
            "task_params.prompt: Input should be a valid integer, unable to parse string as an integer",
        ),
        (
            {"name": 1, "inner": 2},
            "name is 1: Input should be a valid string; inner is 2: Input should be a valid list",
        ),
    ],
)
def test_the_field_is_named_with_its_value_unless_it_is_private(value: object, message: str) -> None:
    assert described(value) == message


def test_of_many_errors_ten_are_named() -> None:
    message = described({"inner": [{"size": 4}] * 12})

    shown = [f"inner.{index}.size is 4: Input should be less than or equal to 3" for index in range(10)]
    assert message == "; ".join([*shown, "and 2 more"])
