"""Sizes of values as JSON, measured before anything is written.

Expressions share what they repeat: a list that names one text a thousand times takes little memory, and its JSON a
thousand times the text. Each list, object and long text is therefore measured once, however often it occurs, and a
value costs as much time as it has parts in memory.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from citadel_common.errors import InvalidInput, PayloadTooLarge
from citadel_common.text import storable
from citadel_contracts.json_text import UnusableValue

OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
MOST_LEVELS = 234
"""Levels of lists and objects: 20 of the 254 that orjson writes are left for what a value is put into."""
_SHORT = 64
_SHOWN = 5
"""Names and indices of a place that is too deep, all of which would be longer than the reason."""
_PIECE = 2**16
"""Characters or numbers that are written at once to be counted."""
_PER_BYTE = 4
"""Most bytes of JSON for a byte of an array: a float32 takes 16 characters at most, a float64 25."""
_NUMBERS = frozenset({int, float})
_SCALARS = _NUMBERS | {str, bool, type(None)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SizeLimit:
    """The most bytes of JSON that a value may have.

    Attributes:
        bytes: The limit.
        setting: Name of the setting that says so.
    """

    bytes: int
    setting: str

    def check(self, value: Any, what: str) -> int:
        """Return an upper bound of a value's bytes as JSON, exact but for arrays.

        Raises:
            PayloadTooLarge: It has more bytes than the limit.
            InvalidInput: It is nested too deeply.
        """
        try:
            size = json_size(value, exact=False)
            if size > self.bytes:
                self.check_bytes(json_size(value), what)
        except UnusableValue as error:
            raise InvalidInput(f"{what} cannot be written as JSON: {error}") from None
        return size

    def check_bytes(self, size: int, what: str) -> None:
        """Compare a size that is known.

        Raises:
            PayloadTooLarge: It is over the limit.
        """
        if size > self.bytes:
            message = f"{what} has {_written(size)} bytes as JSON; the limit ({self.setting}) is {self.bytes:,}"
            raise PayloadTooLarge(message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunLimits:
    """Limits of what a run makes and reads, each as JSON.

    Attributes:
        output: The output of one step.
        run_output: The output of a run.
        final_context: The context that a run leaves: its own with the outputs of all its steps.
        context: The context that a sub-run is started with.
        scope: What the expressions of one step, or of a run's output, read.
        items: The items of one `for_each`.
        parameters: The parameters of one step.
        message: The texts of one step on their way to the embeddings workers.
    """

    output: SizeLimit = SizeLimit(bytes=16 * 2**20, setting="workflows.max_output_bytes")
    run_output: SizeLimit = SizeLimit(bytes=16 * 2**20, setting="workflows.max_run_output_bytes")
    final_context: SizeLimit = SizeLimit(bytes=16 * 2**20, setting="workflows.max_final_context_bytes")
    context: SizeLimit = SizeLimit(bytes=16 * 2**20, setting="workflows.max_context_bytes")
    scope: SizeLimit = SizeLimit(bytes=32 * 2**20, setting="workflows.max_scope_bytes")
    items: SizeLimit = SizeLimit(bytes=16 * 2**20, setting="workflows.max_items_bytes")
    parameters: SizeLimit = SizeLimit(bytes=32 * 2**20, setting="workflows.max_parameters_bytes")
    message: SizeLimit = SizeLimit(bytes=16 * 2**20, setting="workflows.max_message_bytes")


DEFAULT_RUN_LIMITS = RunLimits()


def _written(size: int) -> str:
    """Return a size for messages; that of a value which shares its parts may have hundreds of digits."""
    return f"{size:,}" if size < 10**18 else "more than 10^18"


def json_size(value: Any, *, exact: bool = True) -> int:
    """Return the bytes of a value as compact JSON in UTF-8; what cannot be written at all counts as nothing.

    Args:
        value: The value. Lone surrogates count as the U+FFFD that replaces them.
        exact: False takes an upper bound for arrays, which costs no time.

    Raises:
        UnusableValue: It is nested more than `MOST_LEVELS` deep.
    """
    try:
        return _Sizer(exact=exact).size(value, 0)
    except _TooDeep:
        raise UnusableValue(_deep_place(value), f"is nested more than {MOST_LEVELS} levels deep") from None


class _TooDeep(Exception):
    """There are more levels than can be written."""


def _deep_place(value: Any) -> tuple[str | int, ...]:
    """Return the first names and indices of a place that is too deep; no part is looked at twice on one level."""
    seen: dict[int, int] = {}
    stack: list[tuple[tuple[str | int, ...], int, Any]] = [((), 0, value)]
    while stack:
        path, level, holder = stack.pop()
        if level >= MOST_LEVELS:
            return path
        if seen.get(id(holder), -1) >= level:
            continue
        seen[id(holder)] = level
        for key, inner in holder.items() if isinstance(holder, Mapping) else enumerate(holder):
            if isinstance(inner, list | tuple | Mapping):
                stack.append(((*path, key)[:_SHOWN], level + 1, inner))
    return ()


class _Sizer:
    """Measures one value; what was measured must live as long as this object."""

    __slots__ = ("_exact", "_known")

    def __init__(self, *, exact: bool) -> None:
        self._exact = exact
        self._known: dict[int, int] = {}

    def size(self, value: Any, level: int) -> int:  # noqa: PLR0911  (one per kind of value, the commonest first)
        if isinstance(value, str):
            return _text(value) if len(value) <= _SHORT else self._once(value, level, lambda text, _: _text(text))
        if value is None or value is True:
            return 4
        if value is False:
            return 5
        if isinstance(value, int | float):
            return _scalar(value)
        if isinstance(value, list | tuple):
            return self._once(value, level, self._list)
        if isinstance(value, Mapping):
            return self._once(value, level, self._object)
        if isinstance(value, np.ndarray):
            return self._once(value, level, self._array)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._once(vars(value), level, self._object)
        return _scalar(value)

    def _once(self, value: Any, level: int, measure: Any) -> int:
        known = self._known.get(id(value))
        if known is None:
            self._known[id(value)] = 0  # a value that holds itself ends here; orjson refuses it
            known = self._known[id(value)] = measure(value, level)
        return known

    def _list(self, values: Sequence[Any], level: int) -> int:
        _check(level)
        if not values:
            return 2
        if type(values[0]) in _SCALARS and (size := _flat(values, values)):
            return size
        total = len(values) + 1
        for value in values:
            total += self.size(value, level + 1)
        return total

    def _object(self, values: Mapping[Any, Any], level: int) -> int:
        _check(level)
        if not values:
            return 2
        if size := _flat(values, values.values()):
            return size
        total = 2 * len(values) + 1
        for name, value in values.items():
            total += _text(name) if isinstance(name, str) else _name(name)
            total += self.size(value, level + 1)
        return total

    def _array(self, array: "np.ndarray[Any, Any]", level: int) -> int:
        if not self._exact:
            return _PER_BYTE * array.nbytes + 2
        if array.ndim > 1:
            return self._list(list(array), level)
        return _numbers(array.tolist() if array.dtype == object else array) or 0


def _check(level: int) -> None:
    if level >= MOST_LEVELS:
        raise _TooDeep


def _text(text: str) -> int:
    """Return the bytes of a text in JSON; a long one is written piece by piece, for escapes can make it six times."""
    if len(text) > _PIECE:
        return 2 + sum(_text(text[start : start + _PIECE]) - 2 for start in range(0, len(text), _PIECE))
    try:
        return len(orjson.dumps(text))
    except TypeError:  # half of a surrogate pair
        return len(orjson.dumps(storable(text)))


def _flat(whole: Any, parts: Collection[Any]) -> int | None:
    """Return the bytes of a list or object of scalars, written at once if it is short; None for any other."""
    kinds = set(map(type, parts))
    if kinds <= _NUMBERS and whole is parts:
        return _numbers(parts)
    if not kinds <= _SCALARS or len(parts) > _PIECE:
        return None
    if str in kinds and sum(len(part) for part in parts if type(part) is str) > _PIECE:
        return None
    return _scalar(whole)


def _numbers(values: Any) -> int | None:
    """Return the bytes of a list or array of numbers; None if it has one that orjson does not write."""
    try:
        sizes = [
            len(orjson.dumps(values[start : start + _PIECE], option=OPTIONS)) - 1
            for start in range(0, len(values), _PIECE)
        ]
    except TypeError:
        return None
    return sum(sizes) + 1 if sizes else 2


def _scalar(value: Any) -> int:
    try:
        return len(orjson.dumps(value, option=OPTIONS))
    except TypeError:
        return 0


def _name(name: Any) -> int:
    """Return the bytes of an object's name that is not a text."""
    try:
        return len(orjson.dumps({name: 0}, option=OPTIONS)) - len("{:0}")
    except TypeError:
        return 0
