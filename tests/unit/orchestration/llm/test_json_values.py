"""The one JSON value of an answer, wherever it stands."""

import json

import pytest

from citadel_orchestration.llm.json_values import value_in

GOOD = {"city": "Oslo", "people": 7}
TEXT = json.dumps(GOOD)


def problems_of(value):
    return [] if isinstance(value, dict) and value.keys() >= {"city"} else ["it has no city"]


def found(text, accept=problems_of):
    return value_in(text, accept)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"\ufeff\n {TEXT}\r\n",
        json.dumps(GOOD, indent=2),
        f"```json\n{TEXT}\n```",
        f"```JSON\n{TEXT}\n```",
        f"```json5\n{TEXT}\n```",
        f"``` Json \r\n{TEXT}\r\n```",
        f"```{TEXT}```",
        f"```json\n{TEXT}",
        f"Sure! Here it is:\n```json\n{TEXT}\n```\nAnything else?",
        f"```python\nprint('hi')\n```\nand\n```json\n{TEXT}\n```",
        f"```json\n{TEXT}\n```\nAgain:\n```json\n{TEXT}\n```",
        f'```json\n{{"note": "not this"}}\n```\n```json\n{TEXT}\n```',
        f"The answer is {TEXT}.",
        f"As [1] and {{name}} say: {TEXT}",
        f"use {{ to open: {TEXT}",
        f'<think>Hm, maybe {{"city": "Rome"}}?</think>{TEXT}',
        f"<think>\nHm\n</think>\n\n```json\n{TEXT}\n```",
        f'Hm, {{"city": "Rome"}}?\n</think>\n{TEXT}',
        f"<thinking>a</thinking><think>b</think>{TEXT}",
        f'[THINK]{{"city": "Rome"}}[/THINK]{TEXT}',
        f"<think>a <think> b</think> c</think>{TEXT}",
        f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>{TEXT}",
    ],
)
def test_the_value_is_found(text):
    assert found(text) == (GOOD, [])


@pytest.mark.parametrize(
    "value",
    [
        {"city": "a } b { c", "more": "[["},
        {"city": 'quo"te', "b": {"city": {"city": [1, {"x": "}"}]}}},
        {"city": "</think>", "b": "<think>"},
        {"city": "```json\n{}\n```"},
    ],
)
def test_brackets_tags_and_fences_inside_texts_are_text(value):
    for text in (json.dumps(value), f"It is {json.dumps(value)}, I think.", f"```json\n{json.dumps(value)}\n```"):
        assert found(text) == (value, [])


@pytest.mark.parametrize("value", ["text", 5, 1.5, True, None, [], [1, {"a": 2}]])
def test_values_that_are_no_objects_stand_alone_or_in_a_fence(value):
    for text in (json.dumps(value), f"```json\n{json.dumps(value)}\n```", f"<think>7</think>\n{json.dumps(value)}"):
        assert found(text, lambda _: []) == (value, [])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sure! The city is Oslo.",
        "The answer is 42.",
        f"<think>{TEXT}",
        f"<think>{TEXT}</think>",
        f"<think>it is\n```json\n{TEXT}\n```",
        '{"city": "Oslo",}',
        '{"city": "Oslo"',
        '{"a": {"city": "Oslo"}, "b": }',
        '{"a": {"city": "Oslo"}',
        "{'city': 'Oslo'}",
        '{city: "Oslo"}',
        '{"city": "Oslo" // comment\n}',
    ],
)
def test_what_is_no_value_is_not_taken_for_one(text):
    value, problems = found(text)
    assert value is None
    assert problems[0].startswith("it is not JSON")


def test_one_of_several_values_is_not_chosen_by_chance():
    value, problems = found('{"city": "Oslo"} or {"city": "Rome"}')
    assert value is None
    assert "2 different ones fit" in problems[0]


def test_the_reasons_are_those_of_the_last_value():
    assert found('{"x": 1} {"y": 2}') == (None, ["it has no city"])


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("123456789012345678901234567890", "/city: is an integer beyond 64 bits"),
        ("-9223372036854775809", "/city: is an integer beyond 64 bits"),
        ("9" * 5000, "/city: is an integer beyond 64 bits"),
        ("1e999", "/city: is not a finite number"),
        ("NaN", "/city: is not a finite number"),
        ('{"a": [1, -Infinity]}', "/city/a/1: is not a finite number"),
        (r'"\ud800"', "/city: holds half of a surrogate pair"),
        (r'{"\ud800": 1}', "/city: has a name that holds half of a surrogate pair"),
        ("[" * 200 + "]" * 200, "/city/0/0/0/0: is nested more than 200 levels deep"),
    ],
)
def test_a_value_that_cannot_be_kept_exactly_is_refused_with_its_place(value, problem):
    for text in (f'{{"city": {value}}}', f'It is {{"city": {value}}}, I think.'):
        found_value, problems = found(text)
        assert found_value is None
        assert f"cannot be kept exactly: {problem}" in problems[0]


def test_a_value_that_is_nested_too_deeply_to_be_read_is_refused_in_plain_words():
    assert found("[" * 10**5 + "]" * 10**5) == (
        None,
        ["it is not JSON: it has more than 200 levels of lists and objects"],
    )


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 5e-324, -0.0])
def test_the_numbers_at_the_limits_are_kept(number):
    assert found(json.dumps({"city": number})) == ({"city": number}, [])


@pytest.mark.parametrize(
    "text",
    ["{" * 10**6, "[1," * 300_000, '{"a":' * 10**5, '{"' * 300_000, "```" * 300_000, "<think>" * 10**5, "[" * 10**6],
)
def test_hostile_answers_end(text):
    assert found(text)[0] is None
