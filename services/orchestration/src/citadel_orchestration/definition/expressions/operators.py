"""Evaluation of operators and macros by CEL's rules; a macro is one bounded loop."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from citadel_orchestration.definition.expressions import values
from citadel_orchestration.definition.expressions.evaluation import (
    ELEMENT,
    ENTRY,
    LIST,
    MAP,
    REFERENCE,
    Failed,
    Frame,
    Meter,
    Node,
)
from citadel_orchestration.definition.expressions.values import BuiltList, BuiltMap, kind

Apply = Callable[[Any, Any, Meter], Any]

BINARY: dict[str, Apply] = {
    **values.OPERATORS,
    "relation_eq": values.equal,
    "relation_ne": lambda left, right, meter: not values.equal(left, right, meter),
    "relation_lt": lambda left, right, _meter: values.compare(left, right) < 0,
    "relation_le": lambda left, right, _meter: values.compare(left, right) <= 0,
    "relation_gt": lambda left, right, _meter: values.compare(left, right) > 0,
    "relation_ge": lambda left, right, _meter: values.compare(left, right) >= 0,
    "relation_in": values.contains,
}
"""Binary operators by the grammar's names."""
Macro = Callable[[Any, Frame], Any]


def logic(operands: Sequence[Node], *, absorbing: bool) -> Node:
    """Return `||` (absorbing true) or `&&` (absorbing false): one absorbing operand outweighs failures of others."""
    return lambda frame: _absorb(operands, frame, absorbing=absorbing)


def _absorb(nodes: Iterable[Node], frame: Frame, *, absorbing: bool) -> bool:
    """Return whether a node gives `absorbing`; only if none does, the first failure counts."""
    failure: Failed | None = None
    for node in nodes:
        try:
            if truth(node(frame)) is absorbing:
                return absorbing
        except Failed as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return not absorbing


def truth(value: Any) -> bool:
    """Return the value if it is a bool."""
    if not isinstance(value, bool):
        raise Failed(f"a bool is needed here, not {kind(value)}")
    return value


def choice(condition: Node, yes: Node, no: Node) -> Node:
    """Return `condition ? yes : no`."""
    return lambda frame: yes(frame) if truth(condition(frame)) else no(frame)


def fold(start: Node, steps: Sequence[tuple[Apply, Node]]) -> Node:
    """Return a chain of operators of one rank, left to right."""

    def run(frame: Frame) -> Any:
        value = start(frame)
        for apply, right in steps:
            value = apply(value, right(frame), frame.meter)
        return value

    return run


def prefix(value: Node, signs: Sequence[str]) -> Node:
    """Return `!` and `-` before a value, the innermost first."""

    def run(frame: Frame) -> Any:
        result = value(frame)
        for sign in signs:
            result = not truth(result) if sign == "unary_not" else values.negate(result)
        return result

    return run


def follow(base: Node, links: Sequence[Callable[[Any, Frame], Any]]) -> Node:
    """Return fields, indices and methods after a value."""

    def run(frame: Frame) -> Any:
        value = base(frame)
        for link in links:
            value = link(value, frame)
        return value

    return run


def indexed(key: Node) -> Callable[[Any, Frame], Any]:
    """Return `[key]`."""
    return lambda value, frame: values.index(value, key(frame))


def method(call: Callable[..., Any], arguments: Sequence[Node]) -> Callable[[Any, Frame], Any]:
    """Return `.f(…)`."""
    return lambda value, frame: call(frame.meter, value, *[argument(frame) for argument in arguments])


def call(function: Callable[..., Any], arguments: Sequence[Node]) -> Node:
    """Return `f(…)`."""
    return lambda frame: function(frame.meter, *[argument(frame) for argument in arguments])


def has(holder: Node, name: str) -> Node:
    """Return `has(holder.name)`."""

    def run(frame: Frame) -> bool:
        value = holder(frame)
        if kind(value) != "map":
            raise Failed(f"{kind(value)} has no field `{name[:100]}`")
        return name in value

    return run


def listed(elements: Sequence[Node]) -> Node:
    """Return the list `[…]`."""

    def run(frame: Frame) -> BuiltList:
        frame.meter.grow(LIST + len(elements) * ELEMENT)
        return BuiltList([element(frame) for element in elements])

    return run


def mapped(keys: Sequence[Node], entries: Sequence[Node]) -> Node:
    """Return the map `{…}`."""

    def run(frame: Frame) -> BuiltMap:
        frame.meter.grow(MAP + len(keys) * ENTRY)
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


def _each(value: Any, slot: str, frame: Frame) -> Iterator[Any]:
    """Bind one element after another to the slot, which no other macro of the expression has."""
    if not isinstance(value, list | Mapping):
        raise Failed(f"{kind(value)} has no elements")
    for element in value:
        frame.meter.spend()
        frame.bound[slot] = element
        yield element


def _map(slot: str, bodies: Sequence[Node]) -> Macro:
    condition, body = (bodies[0], bodies[1]) if len(bodies) == 2 else (None, bodies[0])

    def run(value: Any, frame: Frame) -> BuiltList:
        frame.meter.grow(LIST)
        built = BuiltList()
        for _ in _each(value, slot, frame):
            if condition is None or truth(condition(frame)):
                frame.meter.grow(ELEMENT)
                built.append(body(frame))
        return built

    return run


def _filter(slot: str, bodies: Sequence[Node]) -> Macro:
    def run(value: Any, frame: Frame) -> BuiltList:
        frame.meter.grow(LIST)
        built = BuiltList()
        for element in _each(value, slot, frame):
            if truth(bodies[0](frame)):
                frame.meter.grow(REFERENCE)
                built.append(element)
        return built

    return run


def _quantifier(*, absorbing: bool) -> Callable[[str, Sequence[Node]], Macro]:
    """Return `exists` (one true outweighs failures) or `all` (one false does)."""

    def build(slot: str, bodies: Sequence[Node]) -> Macro:
        def run(value: Any, frame: Frame) -> bool:
            # each element is bound in the frame before the body is evaluated
            return _absorb((bodies[0] for _ in _each(value, slot, frame)), frame, absorbing=absorbing)

        return run

    return build


def _exists_one(slot: str, bodies: Sequence[Node]) -> Macro:
    def run(value: Any, frame: Frame) -> bool:
        return sum(truth(bodies[0](frame)) for _ in _each(value, slot, frame)) == 1

    return run


MACROS: dict[str, tuple[Callable[[str, Sequence[Node]], Macro], tuple[int, ...], str]] = {
    "map": (_map, (2, 3), "list"),
    "filter": (_filter, (2,), "list"),
    "all": (_quantifier(absorbing=False), (2,), "bool"),
    "exists": (_quantifier(absorbing=True), (2,), "bool"),
    "exists_one": (_exists_one, (2,), "bool"),
}
"""Builder, numbers of arguments and kind of the result, by name."""
