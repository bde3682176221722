"""Syntax: where expressions begin and end, plain paths, CEL's grammar, and what a path refers to.

The grammar's terminals for strings backtrack without bound on an unterminated string, so no text reaches them
before its strings have been found to end.
"""

import re
from dataclasses import dataclass
from typing import Any

from celpy.celparser import CELParseError, CELParser
from celpy.evaluation import celstr
from lark import Token, Tree

from citadel_orchestration.definition.expressions.evaluation import Malformed
from citadel_orchestration.definition.expressions.values import LARGEST, SMALLEST

OPEN, CLOSE = "${{", "}}"
MAX_LENGTH = 4096

Syntax = Tree[Any]
"""A node of the syntax tree; `data` names the grammar's rule, `children` are nodes or tokens."""

_MARK = re.compile(r"""["'{}]|//""")
_ESCAPES = frozenset("abfnrtv\"'\\")
_IDENT = r"[_a-zA-Z][_a-zA-Z0-9]*"
_KEY = rf"""\.({_IDENT})|\[\s*(\d{{1,9}})\s*\]|\[\s*"([^"\\\n]*)"\s*\]|\[\s*'([^'\\\n]*)'\s*\]"""
_PATH = re.compile(rf"\s*({_IDENT})((?:{_KEY})*)\s*", re.ASCII)
_KEYS = re.compile(_KEY, re.ASCII)
ROOTS = frozenset({"context", "steps", "run", "item", "index"})
STEP_FIELDS = frozenset({"output", "status"})
RUN_FIELDS = frozenset({"id", "workflow_id"})


@dataclass(frozen=True, kw_only=True)
class Key:
    """One step of a path.

    Attributes:
        name: Field's name or list's index.
        dotted: True for `.name`, false for `[name]`.
    """

    name: str | int
    dotted: bool


@dataclass(frozen=True, kw_only=True)
class Source:
    """The text of one expression within a string."""

    text: str


def split(text: str) -> list[str | Source]:
    """Return the parts of a string in order: plain text, and the sources between `${{` and `}}`.

    Raises:
        Malformed: An expression does not end.
    """
    parts: list[str | Source] = []
    position = 0
    while (start := text.find(OPEN, position)) >= 0:
        end = _scan(text, start + len(OPEN), closed=True)
        parts += [text[position:start], Source(text=text[start + len(OPEN) : end])]
        position = end + len(CLOSE)
    parts.append(text[position:])
    return [part for part in parts if part]


def path(text: str) -> tuple[str, tuple[Key, ...]] | None:
    """Return root name and keys of an expression that is nothing but a path; None for any other."""
    match = _PATH.fullmatch(text)
    if match is None:
        return None
    return match[1], tuple(_key(*found.groups()) for found in _KEYS.finditer(match[2]))


def tree(text: str) -> Syntax:
    """Return the syntax tree by CEL's grammar.

    Raises:
        Malformed: The text is too long, or not CEL.
    """
    if not text.strip():
        raise Malformed("expression_syntax", "the expression is empty")
    if len(text) > MAX_LENGTH:
        raise Malformed("expression_too_large", f"an expression may have {MAX_LENGTH} characters at most")
    _scan(text, 0, closed=False)
    try:
        return CELParser().parse(text)
    except CELParseError as error:
        where = f" at column {error.column}" if isinstance(error.column, int) and error.column > 0 else ""
        raise Malformed("expression_syntax", f"this is not CEL{where}") from None


def _key(dotted: str | None, number: str | None, double: str | None, single: str | None) -> Key:
    if dotted is not None:
        return Key(name=dotted, dotted=True)
    return Key(name=int(number) if number is not None else (double or single or ""), dotted=False)


def _scan(text: str, start: int, *, closed: bool) -> int:
    """Return where the expression's `}}` stands, or the end of the text if it needs none."""
    depth, position = 0, start
    while match := _MARK.search(text, position):
        mark, position = match[0], match.end()
        if mark in "\"'":
            position = _string_end(text, match.start())
        elif mark == "{":
            depth += 1
        elif mark == "//":
            raise Malformed("expression_syntax", "comments are not possible in expressions")
        elif depth:
            depth -= 1
        elif closed and text.startswith(CLOSE, match.start()):
            return match.start()
        else:
            raise Malformed("expression_syntax", "there is a `}` too many")
    if closed:
        raise Malformed("expression_unterminated", "an expression that begins with `${{` must end with `}}`")
    return len(text)


def _string_end(text: str, start: int) -> int:
    """Return the position behind the closing quote."""
    quote = text[start] * 3 if text.startswith(text[start] * 3, start) else text[start]
    position = start + len(quote)
    while position < len(text):
        if text.startswith(quote, position):
            return position + len(quote)
        if text[position] == "\n" and len(quote) == 1:
            break
        position += 2 if text[position] == "\\" and text[position + 1 : position + 2] in _ESCAPES else 1
    raise Malformed("expression_unterminated", "a string in the expression does not end")


@dataclass(frozen=True, kw_only=True)
class StepUse:
    """One mention of a step.

    Attributes:
        step_id: The step.
        field: `output` or `status`.
        key: The first key or index after it; None if that is not a constant.
    """

    step_id: str
    field: str
    key: str | int | None


@dataclass(frozen=True, kw_only=True)
class Uses:
    """All mentions in one expression.

    Attributes:
        steps: Mentions of steps.
        context: Keys of the context; None stands for a key that is not a constant.
        names: Root names.
    """

    steps: frozenset[StepUse] = frozenset()
    context: frozenset[str | None] = frozenset()
    names: frozenset[str] = frozenset()

    def __or__(self, other: "Uses") -> "Uses":
        """Return the mentions of both."""
        return Uses(
            steps=self.steps | other.steps, context=self.context | other.context, names=self.names | other.names
        )


def of_path(root: str, keys: tuple[Key, ...]) -> Uses:
    """Return what a path mentions, as far as its keys are constants.

    Raises:
        Malformed: There is no such name, or it is not used as it must be.
    """
    if root not in ROOTS:
        raise Malformed("unknown_name", f"there is no `{root[:100]}`; there are {', '.join(sorted(ROOTS))}")
    names = [key.name for key in keys[:3]]
    if root == "steps":
        return Uses(steps=frozenset({_step(names)}), names=frozenset({root}))
    if root == "run" and (not names or names[0] not in RUN_FIELDS):
        raise Malformed("unknown_name", "`run` has `run.id` and `run.workflow_id`")
    if root == "context":
        key = names[0] if names and isinstance(names[0], str) else None
        return Uses(context=frozenset({key}), names=frozenset({root}))
    return Uses(names=frozenset({root}))


def _step(names: list[str | int]) -> StepUse:
    if len(names) < 2 or not isinstance(names[0], str):
        raise Malformed("steps_misused", "write `steps.<id>.output` or `steps.<id>.status`")
    if names[1] not in STEP_FIELDS:
        raise Malformed("unknown_step_field", f"a step has `output` and `status`, not `{str(names[1])[:100]}`")
    return StepUse(step_id=names[0], field=str(names[1]), key=names[2] if len(names) > 2 else None)


def decoded(token: Token) -> tuple[Any, str]:
    """Return the value of a literal, and its kind.

    Raises:
        Malformed: The literal is of a kind that expressions do not have, or out of range.
    """
    text = str(token)
    if token.type == "INT_LIT":
        return _integer(text), "int"
    if token.type == "FLOAT_LIT":
        return _double(text), "double"
    if token.type in ("STRING_LIT", "MLSTRING_LIT"):
        return _text(token), "string"
    if token.type == "BOOL_LIT":
        return text == "true", "bool"
    if token.type == "NULL_LIT":
        return None, "null"
    raise Malformed("expression_syntax", "bytes and unsigned numbers are not possible in expressions")


def _integer(text: str) -> int:
    if len(text) > 64 or not SMALLEST <= (value := int(text, 16 if "x" in text else 10)) <= LARGEST:
        raise Malformed("expression_syntax", "a number is outside of 64 bits")
    return value


def _double(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Malformed("expression_syntax", "a number is too large")
    return value


def _text(token: Token) -> str:
    try:
        value = str(celstr(token))
        value.encode()
    except (ValueError, OverflowError):
        raise Malformed("expression_syntax", "a string has an escape that is not a character") from None
    return value
