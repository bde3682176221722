"""Bounds of expressions: time, steps, memory and nesting, whatever is written and whatever it is given."""

import pytest

from citadel_common.errors import ExpressionFailed
from citadel_orchestration.definition.expressions.evaluation import Budget
from citadel_orchestration.definition.template import Condition, Template


def value(text, scope, **budget):
    return Template.of(text).evaluate(scope, Budget(**budget))


NESTED = "context.l" + "".join(f".map(x{n}, context.l" for n in range(12)) + ".map(y, y)" + ")" * 12

BOMBS = {
    "nested macros": "${{ " + NESTED + " }}",
    "doubled lists": "${{ [1]" + ".map(x, [x, x])" * 60 + " }}",
    "doubled lists compared": "${{ [1]" + ".map(x, [x, x])" * 40 + " == [1]" + ".map(x, [x, x])" * 40 + " }}",
    "doubled strings": "${{ ['x']" + ".map(x, x + x)" * 60 + " }}",
    "replaced strings": "${{ ['xxxxxxxx']" + ".map(x, x.replace('x', 'xxxxxxxx'))" * 30 + " }}",
    "joined strings": "${{ ['x']" + ".map(x, [x, x, x, x].join(x))" * 30 + " }}",
    "long lists": "${{ " + " + ".join(["context.many"] * 200) + " }}",
    "membership": "${{ context.many.all(x, !(-1 in context.many)) }}",
    "regular expressions": "${{ context.many.all(x, context.text.matches('((a{1,9}){1,9}){1,9}$')) }}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_expression_takes_more_than_its_budget(name):
    scope = {"context": {"l": list(range(50)), "many": list(range(100_000)), "text": "a" * 20_000}}
    with pytest.raises(ExpressionFailed, match=r"it (takes|makes)"):
        Template.of(BOMBS[name]).evaluate(scope)


def test_a_regular_expression_needs_linear_time():
    with pytest.raises(ExpressionFailed, match="too long"):
        value("${{ context.t.matches('((a{1,9}){1,9}){1,9}$') }}", {"context": {"t": "a" * 10_000_000}})
    assert value("${{ context.t.matches('(a*)*b') }}", {"context": {"t": "a" * 100_000}}) is False


def test_an_unended_string_of_escapes_is_refused_at_once():
    with pytest.raises(ExpressionFailed, match="does not end"):
        Template.of("${{ '" + "\\n" * 1500 + " }}")


def test_an_unended_condition_is_refused_at_once():
    with pytest.raises(ExpressionFailed, match="does not end"):
        Condition.of("'" + "\\n" * 1500)


def test_time_steps_and_size_are_each_a_limit():
    scope = {"context": {"l": list(range(1000))}}
    with pytest.raises(ExpressionFailed, match="longer than 0 s"):
        value("${{ context.l.all(x, x >= 0) }}", scope, seconds=0.0)
    with pytest.raises(ExpressionFailed, match="more than 500 steps"):
        value("${{ context.l.all(x, x >= 0) }}", scope, steps=500)
    with pytest.raises(ExpressionFailed, match="more than 2,000 bytes"):
        value("abc ${{ context.l }}", scope, memory=2000)
    assert value("abc ${{ context.l }}", scope, memory=20_000)


@pytest.mark.parametrize(
    "text",
    [
        "context.t + context.t",
        "context.t.replace('a', context.t)",
        "[context.t, context.t].join(context.t)",
        "context.l + context.l",
        "context.l.map(x, {'x': x})",
        "context.l.filter(x, true)",
        "context.l.map(x, string(x))",
        "context.t.split('')",
        "context.t.upperAscii() == context.t.lowerAscii()",
        "context.t.substring(1) == context.t.substring(2)",
    ],
)
def test_the_memory_that_functions_use_counts_against_the_budget(text):
    scope = {"context": {"l": [0] * 240, "t": "a" * 1000}}
    with pytest.raises(ExpressionFailed, match="more than 2,000 bytes"):
        value("${{ " + text + " }}", scope, memory=2000)
    value("${{ " + text + " }}", scope, memory=10_000_000)


def test_all_expressions_of_a_template_share_its_budget():
    scope = {"context": {"l": [1, 2, 3]}}
    with pytest.raises(ExpressionFailed, match="steps"):
        value(["${{ context.l.map(x, x) }}"] * 10, scope, steps=20)
    assert value(["${{ context.l.map(x, x) }}"] * 10, scope, steps=1000) == [[1, 2, 3]] * 10


@pytest.mark.parametrize(
    "text", ["${{ " + "(" * 2000 + "1" + ")" * 2000 + " }}", "${{ " + "[" * 1500 + "]" * 1500 + " }}"]
)
def test_nesting_is_bounded(text):
    with pytest.raises(ExpressionFailed, match="nested"):
        Template.of(text)


def test_long_chains_do_not_count_as_nesting():
    assert value("${{ " + " + ".join(["1"] * 900) + " }}", {}) == 900
    assert value("${{ " + " && ".join(["true"] * 500) + " }}", {}) is True
