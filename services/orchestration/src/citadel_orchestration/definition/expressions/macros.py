"""CEL's macros over the elements of a list, or the keys of a map: each is one bounded loop."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from citadel_orchestration.definition.expressions.failures import Failed
from citadel_orchestration.definition.expressions.frame import Frame, Node
from citadel_orchestration.definition.expressions.operators import truth
from citadel_orchestration.definition.expressions.values import BuiltList, kind

Macro = Callable[[Any, Frame], Any]


def _each(value: Any, slot: str, frame: Frame) -> Iterator[Any]:
    """Binds one element after another; no other macro of the expression has the slot."""
    if not isinstance(value, list | Mapping):
        raise Failed(f"{kind(value)} has no elements")
    for element in value:
        frame.meter.spend()
        frame.bound[slot] = element
        yield element


def _map(slot: str, bodies: Sequence[Node]) -> Macro:
    condition, body = (bodies[0], bodies[1]) if len(bodies) == 2 else (None, bodies[0])

    def run(value: Any, frame: Frame) -> BuiltList:
        built = BuiltList()
        for _ in _each(value, slot, frame):
            if condition is None or truth(condition(frame)):
                frame.meter.grow(1)
                built.append(body(frame))
        return built

    return run


def _filter(slot: str, bodies: Sequence[Node]) -> Macro:
    def run(value: Any, frame: Frame) -> BuiltList:
        built = BuiltList()
        for element in _each(value, slot, frame):
            if truth(bodies[0](frame)):
                frame.meter.grow(1)
                built.append(element)
        return built

    return run


def _quantifier(*, absorbing: bool) -> Callable[[str, Sequence[Node]], Macro]:
    """`exists` (one true outweighs failures) or `all` (one false does)."""

    def build(slot: str, bodies: Sequence[Node]) -> Macro:
        def run(value: Any, frame: Frame) -> bool:
            failure: Failed | None = None
            for _ in _each(value, slot, frame):
                try:
                    if truth(bodies[0](frame)) is absorbing:
                        return absorbing
                except Failed as error:
                    failure = failure or error
            if failure is not None:
                raise failure
            return not absorbing

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
"""How each is built, how many arguments it takes, and the kind of its result."""
