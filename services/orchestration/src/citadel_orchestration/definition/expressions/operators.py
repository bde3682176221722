"""How the parts of an expression are evaluated, by CEL's rules."""

from collections.abc import Callable, Sequence
from typing import Any

from citadel_orchestration.definition.expressions import arithmetic, values
from citadel_orchestration.definition.expressions.budget import Meter
from citadel_orchestration.definition.expressions.failures import Failed
from citadel_orchestration.definition.expressions.frame import Frame, Node
from citadel_orchestration.definition.expressions.values import BuiltList, BuiltMap, kind

Apply = Callable[[Any, Any, Meter], Any]

BINARY: dict[str, Apply] = {
    **arithmetic.OPERATORS,
    "relation_eq": values.equal,
    "relation_ne": lambda left, right, meter: not values.equal(left, right, meter),
    "relation_lt": lambda left, right, _meter: values.compare(left, right) < 0,
    "relation_le": lambda left, right, _meter: values.compare(left, right) <= 0,
    "relation_gt": lambda left, right, _meter: values.compare(left, right) > 0,
    "relation_ge": lambda left, right, _meter: values.compare(left, right) >= 0,
    "relation_in": values.contains,
}
"""By the grammar's names."""


def logic(operands: Sequence[Node], *, absorbing: bool) -> Node:
    """`||` (absorbing true) or `&&` (absorbing false): one absorbing operand outweighs the others' failures."""

    def run(frame: Frame) -> bool:
        failure: Failed | None = None
        for operand in operands:
            try:
                if truth(operand(frame)) is absorbing:
                    return absorbing
            except Failed as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return not absorbing

    return run


def truth(value: Any) -> bool:
    """The value, if it is a bool."""
    if not isinstance(value, bool):
        raise Failed(f"a bool is needed here, not {kind(value)}")
    return value


def choice(condition: Node, yes: Node, no: Node) -> Node:
    """`condition ? yes : no`."""
    return lambda frame: yes(frame) if truth(condition(frame)) else no(frame)


def fold(start: Node, steps: Sequence[tuple[Apply, Node]]) -> Node:
    """A chain of operators of one rank, left to right."""

    def run(frame: Frame) -> Any:
        value = start(frame)
        for apply, right in steps:
            value = apply(value, right(frame), frame.meter)
        return value

    return run


def prefix(value: Node, signs: Sequence[str]) -> Node:
    """`!` and `-`, the innermost first."""

    def run(frame: Frame) -> Any:
        result = value(frame)
        for sign in signs:
            result = not truth(result) if sign == "unary_not" else arithmetic.negate(result)
        return result

    return run


def follow(base: Node, links: Sequence[Callable[[Any, Frame], Any]]) -> Node:
    """Fields, indices and methods after a value."""

    def run(frame: Frame) -> Any:
        value = base(frame)
        for link in links:
            value = link(value, frame)
        return value

    return run


def indexed(key: Node) -> Callable[[Any, Frame], Any]:
    """`[key]`."""
    return lambda value, frame: values.index(value, key(frame))


def method(call: Callable[..., Any], arguments: Sequence[Node]) -> Callable[[Any, Frame], Any]:
    """`.f(…)`."""
    return lambda value, frame: call(frame.meter, value, *[argument(frame) for argument in arguments])


def call(function: Callable[..., Any], arguments: Sequence[Node]) -> Node:
    """`f(…)`."""
    return lambda frame: function(frame.meter, *[argument(frame) for argument in arguments])


def has(holder: Node, name: str) -> Node:
    """`has(holder.name)`."""

    def run(frame: Frame) -> bool:
        value = holder(frame)
        if kind(value) != "map":
            raise Failed(f"{kind(value)} has no field `{name[:100]}`")
        return name in value

    return run


def listed(elements: Sequence[Node]) -> Node:
    """`[…]`."""

    def run(frame: Frame) -> BuiltList:
        frame.meter.grow(len(elements))
        return BuiltList([element(frame) for element in elements])

    return run


def mapped(keys: Sequence[Node], entries: Sequence[Node]) -> Node:
    """`{…}`."""

    def run(frame: Frame) -> BuiltMap:
        frame.meter.grow(len(keys))
        built = BuiltMap()
        for key, entry in zip(keys, entries, strict=True):
            name = key(frame)
            if not isinstance(name, str | int):
                raise Failed(f"a map has no keys of type {kind(name)}")
            if name in built:
                raise Failed("a map has a key twice")
            built[name] = entry(frame)
        return built

    return run
