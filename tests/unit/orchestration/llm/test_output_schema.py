"""Schemas of answers: what is refused, where, and what fits."""

import pytest

from citadel_orchestration.llm.output_schema import OutputSchema, schema_problems


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "string"}}},
        {"$id": "https://example.com/s.json", "$ref": "#/$defs/a", "$defs": {"a": {}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "$ref": "#/definitions/a"},
        {"properties": {"patternProperties": {}, "$ref": {"type": "string"}, "pattern": {"type": "string"}}},
        {"const": {"$ref": "http://elsewhere"}},
        {"$ref": "#"},
        nested(10),
    ],
)
def test_schemas_that_can_be_checked_have_no_problems(schema):
    assert list(schema_problems(schema)) == []


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "strnig"}, "/type"),
        ({"properties": {"a/b": {"minimum": "1"}}}, "/properties/a~1b/minimum"),
        ({"items": {"$ref": "http://127.0.0.1/x"}}, "/items/$ref"),
        ({"items": {"$ref": "file:///etc/passwd"}}, "/items/$ref"),
        ({"$ref": "#/$defs/none"}, "/$ref"),
        ({"anyOf": [{}, {"pattern": "(?=a)b"}]}, "/anyOf/1/pattern"),
        ({"pattern": "("}, "/pattern"),
        ({"patternProperties": {"^a": {}}}, "/patternProperties"),
        ({"unevaluatedProperties": False}, "/unevaluatedProperties"),
        ({"$dynamicRef": "#a"}, "/$dynamicRef"),
        ({"$schema": "http://example.com/mine"}, "/$schema"),
        ({"$schema": 5}, "/$schema"),
        (nested(33), "/not" * 33),
        ({"description": "x" * 40_000}, ""),
        ({"const": object()}, ""),
    ],
)
def test_schemas_that_cannot_be_checked_are_refused_with_a_pointer(schema, pointer):
    assert [found for found, _ in schema_problems(schema)] == [pointer]


def test_all_problems_of_a_schema_are_listed_at_once():
    schema = {"pattern": "(", "items": {"$ref": "http://x"}}
    assert {pointer for pointer, _ in schema_problems(schema)} == {"/pattern", "/items/$ref"}


@pytest.mark.parametrize(
    ("schema", "fits", "does_not"),
    [
        ({"pattern": "^a+$"}, "aa", "ab"),
        ({"uniqueItems": True}, [1, 2, {"a": 1}], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]),
        ({"uniqueItems": False}, [1, 1], None),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}}, 5, "5"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}, {}, []),
        ({"additionalProperties": False, "properties": {"a": {}}}, {"a": 1}, {"b": 1}),
    ],
)
def test_values_are_checked_against_the_schema(schema, fits, does_not):
    assert OutputSchema(schema).problems(fits) == []
    if does_not is not None:
        assert len(OutputSchema(schema).problems(does_not)) == 1


def test_problems_are_few_and_short():
    problems = OutputSchema({"items": {"type": "string"}}).problems([["x" * 10_000]] * 1000)
    assert len(problems) == 5
    assert all(len(problem) < 500 for problem in problems)
    assert problems[0].endswith("is not of type 'string'")


def test_a_schema_is_used_again_and_again():
    schema = OutputSchema({"type": "array", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "integer"}}})
    assert [schema.problems([1] * 9000) for _ in range(4)] == [[]] * 4


def test_a_circular_schema_is_checked_in_bounded_time():
    assert OutputSchema({"allOf": [{"$ref": "#"}]}).problems(1) == [
        "it is nested too deeply to be checked against the schema"
    ]
