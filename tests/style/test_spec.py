"""What openapi.yaml promises to those who generate clients of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import pytest
import yaml
from pydantic import BaseModel

from agentex.app import openapi_yaml
from agentex.web.examples import EXAMPLES, TAGS

DOCUMENT: dict[str, Any] = yaml.load(openapi_yaml(), yaml.CSafeLoader)
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}


def schemas_within(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document, the value itself among them."""
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        yield found
        for inner in found.values():
            yield from schemas_within(inner)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from schemas_within(inner)


def name_of(schema: dict[str, Any]) -> str:
    """The name of the schema that is referred to."""
    return schema.get("$ref", "").rpartition("/")[2]


def test_operation_ids_are_unique_and_fit_any_language() -> None:
    ids = Counter(operation["operationId"] for operation in OPERATIONS.values())
    assert [
        name for name, count in ids.items() if count > 1 or not re.fullmatch(r"[a-z][a-z0-9_]*", name)
    ] == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_says_what_it_does_and_belongs_to_one_group(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["description"]
    (tag,) = operation["tags"]
    assert tag in TAGS


def test_the_groups_are_told_of_and_none_is_empty() -> None:
    used = {operation["tags"][0] for operation in OPERATIONS.values()}
    assert {tag["name"] for tag in DOCUMENT["tags"]} == used == set(TAGS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_answer_says_what_it_holds(name: str) -> None:
    for status, answer in OPERATIONS[name]["responses"].items():
        assert answer["description"]
        media = answer.get("content", {})
        assert media or status == "204", status
        assert all("schema" in kind for kind in media.values())
        if status >= "400" and OPERATIONS[name]["tags"] != ["health"]:
            assert name_of(media["application/problem+json"]["schema"]) == "Problem"


def test_what_may_be_one_of_several_objects_says_how_they_are_told_apart() -> None:
    def objects(schema: dict[str, Any]) -> list[str]:
        kinds = schema.get("anyOf", []) + schema.get("oneOf", [])
        return [name_of(kind) for kind in kinds if SCHEMAS.get(name_of(kind), {}).get("type") == "object"]

    unclear = [objects(schema) for schema in schemas_within(DOCUMENT) if "discriminator" not in schema]
    assert [names for names in unclear if len(names) > 1] == []


@pytest.mark.parametrize("name", [name for name in OPERATIONS if "requestBody" in OPERATIONS[name]])
def test_a_body_of_named_fields_has_an_example(name: str) -> None:
    for media in OPERATIONS[name]["requestBody"]["content"].values():
        schema = name_of(media["schema"])
        assert not schema or media["example"] == EXAMPLES[schema]


def models(kind: type[BaseModel] = BaseModel) -> Iterator[type[BaseModel]]:
    """Every model of the project that has been imported, as all that have a part in the spec have been."""
    for model in kind.__subclasses__():
        if model.__module__.startswith("agentex."):
            yield model
        yield from models(model)


BODIES = {
    name_of(media["schema"])
    for operation in OPERATIONS.values()
    for media in operation.get("requestBody", {}).get("content", {}).values()
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_valid_and_of_a_body(name: str) -> None:
    assert name in BODIES
    (model,) = {model for model in models() if model.__name__ == name}
    model.model_validate(EXAMPLES[name])
