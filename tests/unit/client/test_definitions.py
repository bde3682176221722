"""Workflow definitions from files: values, lines, refusals."""

import pytest

from citadel_client.cli.definitions import load, settings
from citadel_client.cli.options import UsageError

YAML = """\
# asks
workflow_id: ask
context: {day: 2024-01-01, on_time: yes}
steps:
  - &q
    step_id: q
    type: embedding
    parameters:
      text: ${{ context.day }}
  - step_id: docs
    depends_on: [q]
"""
JSON = """{
\t"steps": [
\t\t{"step_id": "a~b/c",
\t\t "parameters": {"a~b/c": "tab \\u0041 \\ud83d\\ude00"}}
\t]
}"""


@pytest.fixture
def read(tmp_path):
    def read(text):
        file = tmp_path / "w.yaml"
        file.write_text(text)
        return load(file)

    return read


def test_yaml_is_read_with_the_values_of_json(read):
    found = read(YAML).definition
    assert found["context"] == {"day": "2024-01-01", "on_time": True}
    assert found["steps"][0]["parameters"] == {"text": "${{ context.day }}"}


@pytest.mark.parametrize(
    ("pointer", "line"),
    [
        ("", 2),
        ("/workflow_id", 2),
        ("/steps/0/parameters/text", 9),
        ("/steps/0/parameters/missing", 9),
        ("/steps/1", 10),
        ("/steps/1/depends_on/0", 11),
        ("/steps/7/type", 5),
        ("/nowhere", 2),
    ],
)
def test_a_pointer_has_a_line(read, pointer, line):
    assert read(YAML).line(pointer) == line


def test_json_keeps_its_strings_and_has_lines(read):
    source = read(JSON)
    assert source.definition["steps"][0]["parameters"] == {"a~b/c": "tab A 😀"}
    assert source.line("/steps/0/parameters/a~0b~1c") == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [", r"w\.yaml:1:\d+: "),
        ("a: 1\nsteps: []\na: 2\n", r"w\.yaml:3:1: the key 'a' is a duplicate"),
        ("steps:\n  - on: 1\n", r"w\.yaml:2:5: a key must be a string: quote it"),
        ("steps: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("- 1\n", "a workflow is a mapping with `steps`"),
        ("", "a workflow is a mapping with `steps`"),
        ("a: 1\n---\nb: 2\n", "but found another document"),
        ("steps: \x00", "neither YAML nor JSON"),
        ('{"a": ' * 5000, "."),
    ],
)
def test_a_file_without_a_definition_is_refused_with_its_line(read, text, message):
    with pytest.raises(UsageError, match=message):
        read(text)


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        load(tmp_path / "none")


def test_set_takes_json_or_strings():
    pairs = ["n=1", "list=[1, 2]", "text=two words", 'quoted="1"', "eq=a=b", "empty=", "nan=NaN"]
    assert settings(pairs) == {
        "n": 1,
        "list": [1, 2],
        "text": "two words",
        "quoted": "1",
        "eq": "a=b",
        "empty": "",
        "nan": "NaN",
    }


@pytest.mark.parametrize("pair", ["x", "=1", ""])
def test_set_refuses_values_without_a_key(pair):
    with pytest.raises(UsageError, match="key=value"):
        settings([pair])


BEYOND = "12345678901234567890123"


@pytest.mark.parametrize(
    "text",
    [
        '{"context": {"x": [{"n": %s}]}, "steps": []}',
        "context:\n  x:\n  - n: %s\nsteps: []",
        "\ufeffcontext: {x: [{n: %s}]}\nsteps: []",
    ],
)
@pytest.mark.parametrize("number", [BEYOND, "-" + BEYOND, "1e999"])
def test_a_number_that_cannot_be_kept_is_refused_with_its_place(read, text, number):
    if number == "1e999" and "{" not in text[:1]:
        number = ".inf"
    with pytest.raises(UsageError, match=r"/context/x/0/n: is (an integer beyond 64 bits|not a finite number)"):
        read(text % number)


@pytest.mark.parametrize("number", ["9223372036854775807", "-9223372036854775808", "0.12345678901234568", "-0.0"])
def test_a_number_is_read_exactly(read, number):
    for text in ('{"context": {"n": %s}}', "\ufeffcontext: {n: %s}", '\ufeff{"context": {"n": %s}}'):
        assert repr(read(text % number).definition["context"]["n"]) == number


def test_a_number_of_an_option_that_cannot_be_kept_is_refused():
    assert settings([f'id="{BEYOND}"']) == {"id": BEYOND}
    with pytest.raises(UsageError, match="send it as a string, in double quotes"):
        settings([f"id={BEYOND}"])
