"""ARCHITECTURE.md says where things are: the places that it names exist."""

import ast
import re
from pathlib import Path

import pytest

TEXT = Path("ARCHITECTURE.md").read_text(encoding="utf-8")
PACKAGES = [path for tree in ("libs", "services") for path in Path(tree).glob("*/src/citadel_*")]


def section(title):
    return re.split(r"\n#+ ", TEXT.split(f" {title}\n", 1)[1], maxsplit=1)[0]


ANSWERS = re.findall(r"^\| (?!question|---)(.+?) \| (.+) \|$", section("Where is it decided"), re.MULTILINE)
WALKS = {"The files on the way of a text": 36, "The files on the way of a definition": 40}
"""Lists of files, and how many there may be at most."""


def files_of(title):
    """Return the modules in a list: each line begins with the folder of its files."""
    found = []
    for line in re.split(r"\n- ", section(title))[1:]:
        folder, *names = re.findall(r"`([^`]+)`", line)
        found += [folder + name for name in names]
    return found


def defined_in(path):
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if hasattr(node, "name")} | {
        target.id
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


def test_the_map_answers_at_least_ten_questions():
    assert len({question for question, _ in ANSWERS}) >= 10


@pytest.mark.parametrize(("question", "answer"), ANSWERS)
def test_a_question_has_one_place_which_exists(question, answer):
    place, name = re.fullmatch(r"`([^`]+)`(?: \(`(\w+)`\))?", answer).groups()
    assert Path(place).exists(), question
    assert name is None or name in defined_in(Path(place)), question


@pytest.mark.parametrize(("title", "most"), WALKS.items())
def test_the_files_on_the_way_exist_and_are_few(title, most):
    files = files_of(title)
    missing = [name for name in files if not any((path.parent / name).is_file() for path in PACKAGES)]
    assert missing == []
    assert len(files) == len(set(files)) <= most
