"""Workflow definitions from YAML and JSON files, with the line of each JSON pointer."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from citadel_client.cli.files import opened
from citadel_client.cli.options import UsageError
from citadel_contracts import json_text
from citadel_contracts.errors import FieldError, path_of_pointer

DATE_TAG = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """Loader of YAML with the values of JSON: dates stay strings, and duplicate keys are errors."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML reads it from the class)
        first: [(tag, pattern) for tag, pattern in found if tag != DATE_TAG]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping with string keys.

        Raises:
            yaml.constructor.ConstructorError: A key is a duplicate, or is not a string.
        """
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(None, None, "a key must be a string: quote it", key.start_mark)
            if key.value in seen:
                problem = f"the key {key.value!r} is a duplicate"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A definition and its file.

    Attributes:
        name: Name of the file, for messages.
        definition: The definition.
        root: The definition as YAML nodes, which know their lines.
    """

    name: str
    definition: dict[str, Any]
    root: yaml.Node

    def line(self, pointer: str) -> int | None:
        """Return the line of a JSON pointer, or that of the innermost node around it that exists."""
        node = self.root
        for part in path_of_pointer(pointer):
            found = _child(node, part)
            if found is None:
                break
            node = found
        return int(node.start_mark.line) + 1

    def messages(self, problems: Iterable[FieldError]) -> list[str]:
        """Return a line per problem, in the form of compiler messages."""
        return [
            f"{self.name}:{self.line(problem.pointer)}: {problem.pointer or 'definition'}: {problem.detail}"
            for problem in problems
        ]


def _child(node: yaml.Node, part: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        found: yaml.Node = node.value[int(part)]
        return found
    return None


def load(path: Path) -> Source:
    """Return the definition in a file, `-` for standard input.

    Raises:
        UsageError: It cannot be read, or is not one YAML or JSON document with a mapping.
    """
    name = "<stdin>" if str(path) == "-" else str(path)
    with opened(path) as file:
        text = file.read().removeprefix("\ufeff")
    try:
        definition, root = _parsed(text)
    except yaml.YAMLError as error:
        raise UsageError(_message(name, error)) from error
    except json_text.UnusableValue as error:
        raise UsageError(f"{name}: {error}") from None
    except RecursionError:
        raise UsageError(f"{name}: nested too deeply") from None
    if not isinstance(definition, dict) or root is None:
        raise UsageError(f"{name}: a workflow is a mapping with `steps`")
    return Source(name=name, definition=definition, root=root)


def _parsed(text: str) -> tuple[Any, yaml.Node | None]:
    """Return the value and its YAML nodes; the value of a JSON text is JSON's, where YAML differs (as in escapes).

    Raises:
        UnusableValue: A number cannot be sent as it is.
    """
    loader = _Loader(text.replace("\t", " ") if text.lstrip().startswith("{") else text)
    try:
        root = loader.get_single_node()
        made = loader.construct_document(root) if root is not None else None
    finally:
        loader.dispose()
    try:
        return json_text.loads(text.encode()), root
    except json_text.NotJson:
        json_text.check(made)
        return made, root


def _message(name: str, error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"{name}: neither YAML nor JSON: {str(error).splitlines()[0]}"
    mark = error.problem_mark or error.context_mark
    place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
    return f"{name}{place}: {error.problem or error.context}"


def settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Return the values of `--set`: JSON if they are valid JSON, else strings.

    Raises:
        UsageError: One is not `key=value`.
    """
    found = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"--set takes key=value, not {pair!r}")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json_text.loads(text.encode())
    except json_text.NotJson:
        return text
    except json_text.UnusableValue as error:
        raise UsageError(f"--set {text[:40]}: {error.detail}, in double quotes") from None
