"""JSON with expressions in its strings.

A string that is exactly one `${{ expression }}` becomes the expression's value, of whatever type. In any other
string the values are inserted: strings as they are, all else as compact JSON.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from citadel_common.errors import ExpressionFailed
from citadel_contracts.json_text import UnusableValue
from citadel_orchestration.definition.expressions.compiler import Expression, compiled
from citadel_orchestration.definition.expressions.evaluation import (
    DEFAULT_BUDGET,
    Budget,
    Exhausted,
    Failed,
    Malformed,
    Meter,
    text_bytes,
)
from citadel_orchestration.definition.expressions.syntax import CLOSE, OPEN, Source, Uses, split
from citadel_orchestration.definition.sizes import json_size

MAX_DEPTH = 100
SHOWN = 200
_WRITING = 4
"""Bytes of memory for a byte of JSON while it is written as a text."""

Fill = Callable[[Mapping[str, Any], Meter], Any]


@dataclass(frozen=True, kw_only=True)
class References:
    """Steps and context that a template reads.

    Attributes:
        steps: Ids of steps whose output or status it reads.
        context: True if it reads the context.
        context_keys: The keys that it reads there; None if they are not known.
    """

    steps: frozenset[str] = frozenset()
    context: bool = False
    context_keys: frozenset[str] | None = frozenset()

    @classmethod
    def of(cls, uses: Uses) -> "References":
        """Return what expressions with these mentions read."""
        keys = frozenset(key for key in uses.context if key is not None)
        return cls(
            steps=frozenset(use.step_id for use in uses.steps),
            context=bool(uses.context),
            context_keys=None if None in uses.context else keys,
        )


class _Part(NamedTuple):
    """What one expression mentions, and whether it is a path, whose value stands there unchanged."""

    uses: Uses
    is_copy: bool


class _Broken(Exception):
    """An expression failed; the message has its text."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"`{_shown(text)}`: {reason}")


@dataclass(frozen=True, kw_only=True)
class Template:
    """A JSON value whose strings may hold expressions; see `of`.

    Attributes:
        value: As written.
        uses: What its expressions mention.
        references: Steps and context that it reads.
        copies: How many values of the scope it takes over whole; None if its expressions make new values.
    """

    value: Any
    uses: Uses
    references: References
    copies: int | None
    _fill: Fill | None = field(repr=False)

    @classmethod
    def of(cls, value: Any, *, verbatim: frozenset[str] = frozenset()) -> "Template":
        """Compile a value; fields named in `verbatim` are left as they are.

        Raises:
            ExpressionFailed: An expression is malformed, or the value is nested too deeply.
        """
        found: list[_Part] = []
        try:
            fill = _filling(value, found, 0, verbatim)
        except Malformed as error:
            raise ExpressionFailed(error.reason) from None
        uses = functools.reduce(Uses.__or__, (part.uses for part in found), Uses())
        copies = len(found) if all(part.is_copy for part in found) else None
        return cls(value=value, uses=uses, references=References.of(uses), copies=copies, _fill=fill)

    def most_copied(self, size: int) -> int | None:
        """Return the most bytes of JSON that its expressions give in a scope of `size` bytes of JSON.

        None if they may make more than there is. A context may hold what it was made of twice: below a step's id, and
        as keys of its `data`.
        """
        return None if self.copies is None else 2 * self.copies * size

    @property
    def is_literal(self) -> bool:
        """True if it holds no expression."""
        return self._fill is None

    def evaluate(self, scope: Mapping[str, Any], budget: Budget = DEFAULT_BUDGET) -> Any:
        """Return the value with its expressions evaluated; parts without expressions, or of paths, are not copied.

        Args:
            scope: `context`, `steps` (id to `output` and `status`), `run`; `item` and `index` in a `for_each`.
            budget: Limits of all its expressions together.

        Raises:
            ExpressionFailed: An expression has no value; the message has its text and the reason.
        """
        if self._fill is None:
            return self.value
        try:
            return self._fill(scope, Meter(budget))
        except _Broken as error:
            raise ExpressionFailed(str(error)) from None


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A CEL expression that gives a bool.

    Attributes:
        text: As written.
        expression: Compiled.
        references: What it refers to.
    """

    text: str
    expression: Expression
    references: References

    @classmethod
    def of(cls, text: str) -> "Condition":
        """Compile a bare expression, or one in `${{ }}`.

        Raises:
            ExpressionFailed: It is malformed, or gives something other than a bool.
        """
        try:
            expression = condition(text)
        except Malformed as error:
            raise ExpressionFailed(f"`{_shown(text)}`: {error.reason}") from None
        return cls(text=text, expression=expression, references=References.of(expression.uses))

    def evaluate(self, scope: Mapping[str, Any], budget: Budget = DEFAULT_BUDGET) -> bool:
        """Return True if the condition holds; the scope is that of `Template.evaluate`.

        Raises:
            ExpressionFailed: It has no value, or one that is not a bool.
        """
        try:
            value = _value(self.expression, scope, Meter(budget))
        except _Broken as error:
            raise ExpressionFailed(str(error)) from None
        if not isinstance(value, bool):
            raise ExpressionFailed(f"`{_shown(self.text)}`: a condition must give true or false")
        return value


def condition(text: str) -> Expression:
    """Return the expression of a condition.

    Raises:
        Malformed: It is not one expression, or does not give a bool.
    """
    parts = split(text) if OPEN in text else [Source(text=text)]
    sources = [part for part in parts if isinstance(part, Source)]
    if len(sources) != 1 or any(isinstance(part, str) and part.strip() for part in parts):
        raise Malformed("when_not_expression", "a condition is one expression, with no text around it")
    expression = compiled(sources[0].text)
    if expression.gives not in ("", "bool"):
        raise Malformed("when_not_bool", "a condition must give true or false")
    return expression


def expressions(text: str) -> Iterator[Expression]:
    """Return the expressions in a string.

    Raises:
        Malformed: One of them is not valid.
    """
    return (compiled(part.text) for part in split(text) if isinstance(part, Source))


def holds_expression(value: Any) -> bool:
    """Return True if there is an expression in a string, or anywhere in a list or an object, however deep."""
    rest = [value]
    while rest:
        match rest.pop():
            case str() as text if OPEN in text:
                return True
            case Mapping() as mapping:
                rest += [*mapping.keys(), *mapping.values()]
            case list() as items:
                rest += items
    return False


def text_count(written: Any) -> int | None:
    """Return how many texts a parameter holds; None if an expression may give any number."""
    if written is None:
        return 0
    if isinstance(written, list):
        return len(written)
    return None if holds_expression(written) else 1


def only_path(value: Any) -> Expression | None:
    """Return the expression of a string that is exactly one path, such as `${{ steps.q.output.embedding }}`."""
    if not isinstance(value, str) or OPEN not in value:
        return None
    try:
        parts = split(value)
        expression = compiled(parts[0].text) if len(parts) == 1 and isinstance(parts[0], Source) else None
    except Malformed:
        return None
    return expression if expression is not None and expression.path is not None else None


def _filling(value: Any, found: list[_Part], depth: int, verbatim: frozenset[str] = frozenset()) -> Fill | None:
    """Return a function that evaluates the value; None if there is nothing to evaluate."""
    if depth > MAX_DEPTH:
        raise Malformed("too_deep", f"the value is nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        return _string(value, found) if OPEN in value else None
    if isinstance(value, list):
        return _list(value, [_filling(element, found, depth + 1) for element in value])
    if isinstance(value, dict):
        return _object(
            value,
            {key: _filling(entry, found, depth + 1) for key, entry in value.items() if key not in verbatim},
        )
    return None


def _string(text: str, found: list[_Part]) -> Fill:
    parts = [compiled(part.text) if isinstance(part, Source) else part for part in split(text)]
    only = parts[0]
    found.extend(
        _Part(part.uses, is_copy=len(parts) == 1 and part.path is not None)
        for part in parts
        if isinstance(part, Expression)
    )
    if len(parts) == 1 and isinstance(only, Expression):
        return lambda scope, meter: _value(only, scope, meter)
    return lambda scope, meter: "".join(
        part if isinstance(part, str) else _inserted(part, scope, meter) for part in parts
    )


def _list(value: list[Any], fills: list[Fill | None]) -> Fill | None:
    if not any(fills):
        return None
    pairs = list(zip(value, fills, strict=True))
    return lambda scope, meter: [fill(scope, meter) if fill else element for element, fill in pairs]


def _object(value: dict[str, Any], fills: dict[str, Fill | None]) -> Fill | None:
    changing = {key: fill for key, fill in fills.items() if fill}
    if not changing:
        return None
    return lambda scope, meter: {
        key: changing[key](scope, meter) if key in changing else entry for key, entry in value.items()
    }


def _value(expression: Expression, scope: Mapping[str, Any], meter: Meter) -> Any:
    try:
        return expression.evaluate(scope, meter)
    except (Failed, Exhausted) as error:
        raise _Broken(expression.text, str(error)) from None


def _inserted(expression: Expression, scope: Mapping[str, Any], meter: Meter) -> str:
    value = _value(expression, scope, meter)
    try:
        if isinstance(value, str):
            meter.grow(text_bytes(len(value), value))
            return value
        meter.grow(_WRITING * json_size(value))  # before it is written: its parts may be shared
    except Exhausted as error:
        raise _Broken(expression.text, str(error)) from None
    except UnusableValue:
        raise _Broken(expression.text, "the value has no JSON form") from None
    return _compact(expression, value)


def _compact(expression: Expression, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        raise _Broken(expression.text, "the value has no JSON form") from None


def _shown(text: str) -> str:
    text = text.strip().removeprefix(OPEN).removesuffix(CLOSE).strip()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
