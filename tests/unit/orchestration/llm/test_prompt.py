"""The words around a question."""

import pytest

from citadel_common.errors import InvalidInput
from citadel_orchestration.llm.question import conversation, correction


def contents(*args, **fields):
    return [(message.role, message.content) for message in conversation(*args, **fields)]


def test_a_question_without_context_is_one_message():
    assert contents("Hi", system=None) == [("user", "Hi")]


@pytest.mark.parametrize("context", [None, {}, "", []])
def test_an_empty_context_adds_nothing(context):
    assert contents("Hi", system=None, context=context) == [("user", "Hi")]


@pytest.mark.parametrize(
    ("context", "shown"),
    [
        ("as it is", "as it is"),
        ({"a": "ü", "b": [1, 2]}, '{"a":"ü","b":[1,2]}'),
        ({"hits": [{"id": 1, "vector": [0.1] * 384}]}, '{"hits":[{"id":1,"vector":"[384 numbers]"}]}'),
        ([["x"] * 40], '[["' + '","'.join(["x"] * 40) + '"]]'),
    ],
)
def test_context_comes_before_the_question(context, shown):
    assert contents("Hi", system=None, context=context) == [("user", f"Context:\n{shown}\n\nHi")]


def test_the_schema_follows_the_system_message():
    (role, content), _ = contents("Hi", system="Be brief.", schema={"type": "object"})
    assert role == "system"
    assert content.startswith("Be brief.\n\nAnswer with JSON only")
    assert content.endswith('{"type":"object"}')


def test_context_that_is_not_json_is_refused():
    deep = []
    for _ in range(100):
        deep = [deep]
    for bad in ({"a": object()}, deep):
        with pytest.raises(InvalidInput, match="context"):
            conversation("Hi", system=None, context=bad)


def test_a_long_bad_answer_is_quoted_in_part():
    said, correction_text = correction("x" * 100_000, ["one", "two"])
    assert len(said.content) == 4001
    assert "- one\n- two\n" in correction_text.content
