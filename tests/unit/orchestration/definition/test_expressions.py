"""Expressions: CEL over JSON values, and nothing else."""

import json
import math

import celpy
import pytest
from celpy.adapter import CELJSONEncoder, json_to_cel
from hypothesis import given, settings
from hypothesis import strategies as st

from citadel_common.errors import ExpressionFailed
from citadel_orchestration.definition.template import Condition, Template

HITS = [
    {"id": 1, "score": 0.9, "payload": {"text": "one"}},
    {"id": 2, "score": 0.4, "payload": {"text": "two"}},
]
SCOPE = {
    "context": {"name": "Ada", "n": 3, "f": 1.5, "big": 2**70, "l": [1, 2, 3], "none": None, "in": 1, "a b": "c"},
    "steps": {
        "q": {"output": {"embedding": [0.25] * 1024, "hits": HITS}, "status": "succeeded"},
        "a-b": {"output": "dashed", "status": "skipped"},
    },
    "run": {"id": "r-1", "workflow_id": "w-1"},
    "item": {"x": [10, 20]},
    "index": 1,
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def value(text, scope=SCOPE):
    return Template.of(text).evaluate(scope)


def same(one, other):
    """Equal, types included: 1 is not 1.0 and not true."""
    return json.dumps(one) == json.dumps(other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${{ context.n }}", 3),
        ("${{context.f}}", 1.5),
        ("${{ context.big }}", 2**70),
        ("${{ context.none }}", None),
        ("${{ context['a b'] }}", "c"),
        ("${{ context.in }}", 1),
        ("${{ steps['a-b'].output }}", "dashed"),
        ("${{ steps.q.output.hits[1].payload.text }}", "two"),
        ("${{ steps.q.status }}", "succeeded"),
        ("${{ run.id }}", "r-1"),
        ("${{ item.x[index] }}", 20),
        ("Hello ${{ context.name }}, ${{ context.n }}!", "Hello Ada, 3!"),
        ("${{ context.l }} ${{ context.none }} ${{ true }} ${{ 1.0 }}", "[1,2,3] null true 1.0"),
        ("${{ {'ü': [1]} }}.", '{"ü":[1]}.'),
        ("no expression, ${ x }, }} and {{ y }}", "no expression, ${ x }, }} and {{ y }}"),
        ("${{ '${{' }} stays", "${{ stays"),
        ("${{ {'a': {'b': 1}} }}", {"a": {"b": 1}}),
        ("${{ '}}' + \"'\" }}", "}}'"),
        ("${{ context.n + 1 }}", 4),
        ("${{ -7 / 2 }}", -3),
        ("${{ -7 % 3 }}", -1),
        ("${{ 7.0 / 2.0 }}", 3.5),
        ("${{ 0x1F - -1 }}", 32),
        ("${{ --3 }}", 3),
        ("${{ 1 + 2 * 3 - 4 }}", 3),
        ("${{ 1 == 1.0 && 1 != 2 && 'a' != 1 && null == null && true != 1 }}", True),
        ("${{ [1, {'a': 2}] == [1.0, {'a': 2}] }}", True),
        ("${{ 2 > 1.5 && 'b' > 'a' && context.f <= 2 }}", True),
        ("${{ 2 in context.l && !(9 in context.l) && 'name' in context }}", True),
        ("${{ context.n > 2 ? 'many' : 'few' }}", "many"),
        ("${{ context.missing == 1 || true }}", True),
        ("${{ true || context.missing == 1 }}", True),
        ("${{ context.missing == 1 && false }}", False),
        ("${{ has(context.name) && !has(context.missing) }}", True),
        ("${{ has(steps.q.output) }}", True),
        ("${{ size(context.l) + size('äöü') + context.l.size() }}", 9),
        ("${{ steps.q.output.hits.map(h, h.payload.text).join(', ') }}", "one, two"),
        ("${{ steps.q.output.hits.filter(h, h.score > 0.5).map(h, h.id) }}", [1]),
        ("${{ context.l.map(x, x > 1, x * 10) }}", [20, 30]),
        ("${{ context.l.exists(x, x == 2) && context.l.all(x, x > 0) && context.l.exists_one(x, x > 2) }}", True),
        ("${{ ['a', 2].exists(x, x > 1) }}", True),
        ("${{ {'k': 1}.all(k, k == 'k') }}", True),
        ("${{ [1, 2].map(x, [3].map(x, x * 2)[0] + x) }}", [7, 8]),
        ("${{ [[1], [2]].map(x, x.map(y, x + [y])) }}", [[[1, 1]], [[2, 2]]]),
        ("${{ [1] + [2] }}", [1, 2]),
        ("${{ int('42') + int(1.9) }}", 43),
        ("${{ double('1.5') + double(1) }}", 2.5),
        ("${{ string(1.0) + string(7) + string(true) }}", "17true"),
        ("${{ bool('true') }}", True),
        ("${{ 'abc'.matches('^a.c$') && matches('abc', 'b') }}", True),
        ("${{ 'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c') }}", True),
        ("${{ ' Ab '.trim().lowerAscii() + 'x'.upperAscii() }}", "abX"),
        ("${{ 'a-b'.split('-') }}", ["a", "b"]),
        ("${{ 'a-b'.replace('-', '+').substring(1) + 'abc'.substring(0, 1) }}", "+ba"),
        ("${{ '\\u00e4\\n' }}", "ä\n"),
        ('${{ """a"b""" }}', 'a"b'),
        ("${{ r'\\d' }}", "\\d"),
    ],
)
def test_an_expression_has_the_value_that_cel_gives_it(text, expected):
    assert same(value(text), expected)


def test_a_whole_structure_is_filled_and_the_rest_is_left():
    written = {"a": ["${{ context.n }}", {"b": "x${{ context.n }}"}], "c": {"d": [1, 2]}}
    assert value(written) == {"a": [3, {"b": "x3"}], "c": {"d": [1, 2]}}
    assert written["a"][0] == "${{ context.n }}"


@given(json_values)
def test_values_go_through_unchanged(anything):
    scope = {"context": {"v": anything}}
    for text in ("${{ context.v }}", "${{ [context.v][0] }}", "${{ true ? context.v : null }}"):
        assert same(value(text, scope), anything)
    assert same(value("${{ [context.v, {'k': context.v}] }}", scope), [anything, {"k": anything}])


@given(json_values)
def test_text_without_expressions_is_not_changed(anything):
    assert Template.of({"v": anything}).evaluate({}) == {"v": anything} or "${{" in json.dumps(anything)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${{ context.missing }}", "there is no `missing`"),
        ("${{ context.name.x }}", "string has no field"),
        ("${{ context.l[3] }}", "no element 3 in a list of 3"),
        ("${{ context.l[0 - 1] }}", "no element -1"),
        ("${{ context.l['0'] }}", "index must be an int"),
        ("${{ context.l[true] }}", "index must be an int"),
        ("${{ 1 + 1.0 }}", "two ints or two doubles"),
        ("${{ 1 + 'a' }}", "int and string"),
        ("${{ 9223372036854775807 + 1 }}", "64 bits"),
        ("${{ context.big + 1 }}", "64 bits"),
        ("${{ 1 / 0 }}", "division by zero"),
        ("${{ 1e308 * 10.0 }}", "finite"),
        ("${{ 1 < 'a' }}", "no order"),
        ("${{ context.n ? 1 : 2 }}", "a bool is needed"),
        ("${{ context.n && true }}", "a bool is needed"),
        ("${{ !context.n }}", "a bool is needed"),
        ("${{ context.n.map(x, x) }}", "has no elements"),
        ("${{ {1: 2} }}", "JSON has no keys of type int"),
        ("${{ {'a': 1, 'a': 2} }}", "key twice"),
        ("${{ 'a'.matches('(') }}", "RE2"),
        ("${{ 'a'.matches('(?=a)') }}", "RE2"),
        ("${{ int('abc') }}", "not an int"),
        ("${{ string([1]) }}", "no string form"),
        ("${{ has(context.name.x) }}", "has no field"),
    ],
)
def test_failures_say_the_expression_and_the_reason(text, reason):
    with pytest.raises(ExpressionFailed) as raised:
        value(text)
    assert reason in str(raised.value)
    assert text.strip("${} ")[:10] in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "${{ context.__class__ }}",
        "${{ context.name.__class__ }}",
        "${{ context.name.format('x') }}",
        "${{ steps.q.output.hits.append(1) }}",
        "${{ context.keys() }}",
        "${{ __import__('os') }}",
        "${{ open('/etc/passwd') }}",
        "${{ type(context) }}",
        "${{ google.protobuf.Int32Value{value: 1} }}",
        "${{ .context }}",
        "${{ lambda x: x }}",
    ],
)
def test_nothing_of_python_is_within_reach(text):
    with pytest.raises(ExpressionFailed):
        value(text)


def test_case_changes_in_ascii_alone():
    assert value("${{ 'aÉéB'.lowerAscii() + 'aÉéB'.upperAscii() }}") == "aÉébAÉéB"


def test_an_int_is_no_key_of_a_map_from_json_however_large_that_is():
    with pytest.raises(ExpressionFailed, match="there is no key 5"):
        value("${{ context.m[5] }}", {"context": {"m": {"5": 1}}})
    assert value("${{ {1: 'one'}[1] + {'1': 'text'}['1'] }}") == "onetext"


TOKENS = [
    "context", "steps.q.output.hits", "item", "index", ".n", ".l", "[0]", "['a", "b']", "(", ")", "[", "]", "{",
    "}", ",", ":", "?", "+", "-", "*", "/", "%", "==", "<", "in", "&&", "||", "!", "1", "1.5", "'a'",
    "'\\ud800'", "true", "null", ".map(x,", "x", ".filter(x,", ".exists(x,", "x", ".size()", "size(", "has(",
    "int(", "string(", ".matches(", ".join(", ".split(", ".replace(", "0x", "9223372036854775807", "1e308",
    "b''", "r''", "//", "\n", '"', "#", "@", "é",
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.sampled_from(TOKENS),
        max_size=12,
    ),
    st.sampled_from(["", " "]),
)
def test_any_text_gives_json_or_an_error(tokens, between):
    scope = {**SCOPE, "context": {**SCOPE["context"], "half": "\ud800"}}
    try:
        result = value("${{" + between.join(tokens) + "}}", scope)
    except ExpressionFailed as error:
        found = str(error)
        assert found
    else:
        json.dumps(result, allow_nan=False)


def test_half_surrogate_pairs_do_not_crash_the_evaluation():
    with pytest.raises(ExpressionFailed, match="surrogate"):
        value("${{ context.t.matches('a') }}", {"context": {"t": "\ud800"}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("context.n > 2", True), ("${{ context.n > 5 }}", False), ("  ${{ has(context.x) }} ", False), ("true", True)],
)
def test_conditions_are_true_or_false(text, expected):
    assert Condition.of(text).evaluate(SCOPE) is expected


def test_a_condition_gives_a_bool():
    with pytest.raises(ExpressionFailed, match="true or false"):
        Condition.of("'yes'")
    with pytest.raises(ExpressionFailed, match="true or false"):
        Condition.of("context.name").evaluate(SCOPE)


def test_references_are_the_steps_and_keys_that_expressions_read():
    found = Template.of(
        ["${{ steps.a.output.x + steps['b c'].status }}", "${{ context.q }} ${{ context['r'].s }}", "${{ run.id }}"]
    ).references
    assert (found.steps, found.context, found.context_keys) == ({"a", "b c"}, True, {"q", "r"})


@pytest.mark.parametrize("text", ["${{ context }}", "${{ context[item] }}", "${{ context.map(k, context[k]) }}"])
def test_computed_context_keys_leave_the_references_open(text):
    found = Template.of(["${{ context.q }}", text]).references
    assert (found.context, found.context_keys) == (True, None)


def test_a_variable_hides_a_name_of_the_scope():
    found = Template.of("${{ [{'output': 1}].map(steps, steps.output) }}")
    assert found.references.steps == frozenset()
    assert found.evaluate({}) == [1]


def test_steps_are_read_only_when_they_are_mentioned():
    class Lazy(dict):
        def __missing__(self, key):
            asked.append(key)
            return {"output": {"text": "later"}, "status": "succeeded"}

    asked = []
    assert (
        value("${{ steps.a.output.text }} ${{ true || steps.b.output.text == '' }}", {"steps": Lazy()}) == "later true"
    )
    assert asked == ["a"]


def test_a_path_hands_over_the_very_vector():
    assert value("${{ steps.q.output.embedding }}") is SCOPE["steps"]["q"]["output"]["embedding"]


AGREED = [
    "1 + 2 * 3 - 4 / 2 % 3",
    "-7 / 2",
    "-7 % 3",
    "1.5 * 2.0 + 0.25",
    "'a' + 'b' == 'ab'",
    "[1, 2] + [3]",
    "{'a': [1, {'b': 2}]}.a[1].b",
    "1 < 2 && 2 <= 2 && !(3 > 4) || false",
    "false && (1 / 0 == 1)",
    "(1 / 0 == 1) || true",
    "[1, 2, 3].filter(x, x % 2 == 1).map(y, y * y)",
    "[1, 2, 3].exists(x, x > 2) && [1, 2].all(x, x > 0) && [1, 2].exists_one(x, x == 1)",
    "size('abc') + size([1, 2]) + size({'a': 1})",
    "'hello'.startsWith('he') && 'hello'.endsWith('lo') && 'hello'.contains('ll')",
    "'abc'.matches('^a[b-d]+$')",
    "context.n > 2 ? context.name : 'nobody'",
    "has(context.name) && !has(context.nothing)",
    "context.l[1] in context.l",
    "'x' in {'x': 1}",
    "int('12') + int(3.7)",
    "double(3) / double('2')",
    "string(12) + string('x')",
    "context.l.map(x, {'v': x})",
    '"\\u00e4\\t\\x41\\101"',
    "0x10 + 1",
]


@pytest.mark.parametrize("text", AGREED)
def test_the_reference_implementation_agrees(text, monkeypatch):
    monkeypatch.setattr("sys.setrecursionlimit", lambda _limit: None)
    environment = celpy.Environment()
    context = {name: entry for name, entry in SCOPE["context"].items() if name != "big"}
    reference = environment.program(environment.compile(text)).evaluate({"context": json_to_cel(context)})
    assert same(value("${{ " + text + " }}"), json.loads(json.dumps(reference, cls=CELJSONEncoder)))


def test_results_have_only_numbers_that_json_has():
    with pytest.raises(ExpressionFailed):
        value("${{ [double('1e999')] }}")
    with pytest.raises(ExpressionFailed):
        value("${{ -context.x }}", {"context": {"x": math.nan}})
