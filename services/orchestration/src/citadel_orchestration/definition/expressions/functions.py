"""The functions of expressions; `matches` takes linear time, by RE2."""

import functools
import math
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import re2  # type: ignore[import-untyped]  # the package has no types

from citadel_orchestration.definition.expressions.evaluation import LIST, REFERENCE, TEXT, Failed, Meter, text_bytes
from citadel_orchestration.definition.expressions.values import BuiltList, in_range, is_number, kind

MAX_PATTERN = 1000
MAX_MEMORY = 2**20
MAX_WORK = 32 * 2**20
"""Characters of the text times instructions of the compiled pattern: takes a few tenths of a second."""
_INT = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_DOUBLE = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_TO_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_TRUE, _FALSE = frozenset({"true", "True", "TRUE", "t", "1"}), frozenset({"false", "False", "FALSE", "f", "0"})


def matches(text: str, pattern: str, meter: Meter) -> bool:
    """Return True if the pattern is found in the text."""
    compiled = _compiled(pattern)
    work = len(text) * int(compiled.programsize)
    if work > MAX_WORK:
        raise Failed("the text is too long for this pattern")
    meter.spend(1 + work // 1024)
    try:
        return compiled.search(text) is not None
    except UnicodeEncodeError:
        raise Failed("the text holds half of a surrogate pair") from None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    if len(pattern) > MAX_PATTERN:
        raise Failed(f"a pattern may have {MAX_PATTERN} characters at most")
    try:
        return re2.compile(pattern, _options())
    except (re2.error, UnicodeEncodeError):
        raise Failed("the pattern is not valid in RE2's syntax, or too large") from None


@functools.cache
def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_MEMORY
    return options


@dataclass(frozen=True, kw_only=True)
class Function:
    """One function.

    Attributes:
        call: Takes the meter and the arguments, the target first.
        arguments: How many it may take, the target included.
        method: True if `x.f()` is allowed.
        free: True if `f(x)` is allowed.
        gives: Kind of its result; empty if that depends on the arguments.
    """

    call: Callable[..., Any]
    arguments: tuple[int, ...]
    method: bool = True
    free: bool = False
    gives: str = ""


def _size(meter: Meter, value: Any) -> int:  # noqa: ARG001
    if not isinstance(value, str | list | Mapping):
        raise Failed(f"{kind(value)} has no size")
    return len(value)


def _int(meter: Meter, value: Any) -> int:  # noqa: ARG001
    if isinstance(value, str) and _INT.fullmatch(value):
        return in_range(int(value))
    if isinstance(value, float) and math.isfinite(value):
        return in_range(math.trunc(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return in_range(value)
    raise Failed(f"this {kind(value)} is not an int")


def _double(meter: Meter, value: Any) -> float:  # noqa: ARG001
    if is_number(value):
        return float(in_range(value)) if isinstance(value, int) else float(value)
    if isinstance(value, str) and len(value) <= 64 and _DOUBLE.fullmatch(value):
        return float(value)
    raise Failed(f"this {kind(value)} is not a double")


def _string(meter: Meter, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    meter.grow(2 * TEXT)
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, int):
        return str(in_range(value))
    raise Failed(f"{kind(value)} has no string form; write it between other text to get its JSON")


def _bool(meter: Meter, value: Any) -> bool:  # noqa: ARG001
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _TRUE | _FALSE:
        return value in _TRUE
    raise Failed(f"this {kind(value)} is not a bool")


def _of_strings(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that refuses arguments that are not strings."""

    def checked(meter: Meter, *values: Any) -> Any:
        for value in values:
            if not isinstance(value, str):
                raise Failed(f"a string is needed, not {kind(value)}")
            meter.spend(1 + len(value) // 256)
        return call(meter, *values)

    return checked


def _changed(change: Callable[[str], str]) -> Callable[..., Any]:
    def checked(meter: Meter, value: str) -> str:
        meter.grow(text_bytes(len(value), value))
        return change(value)

    return _of_strings(checked)


def _lower(value: str) -> str:
    return value.lower() if value.isascii() else value.translate(_TO_LOWER)


def _upper(value: str) -> str:
    return value.upper() if value.isascii() else value.translate(_TO_UPPER)


def _replace(meter: Meter, value: str, old: str, new: str) -> str:
    meter.grow(text_bytes(len(value) + (value.count(old) + 1) * len(new), value, new))
    return value.replace(old, new)


def _split(meter: Meter, value: str, separator: str) -> BuiltList:
    parts = 1 + (value.count(separator) if separator else len(value))
    meter.grow(LIST + parts * (TEXT + REFERENCE) + text_bytes(len(value), value))
    return BuiltList(value.split(separator) if separator else list(value))


def _join(meter: Meter, value: Any, separator: Any = "") -> str:
    if not isinstance(value, list) or not isinstance(separator, str):
        raise Failed("join needs a list of strings, and a string between them")
    for element in value:
        if not isinstance(element, str):
            raise Failed(f"join needs strings, and found {kind(element)}")
        meter.grow(text_bytes(len(element) + len(separator), element, separator) - TEXT)
    if not all(map(str.isascii, value)):
        meter.grow(text_bytes(sum(map(len, value)) + len(value) * len(separator), "\u00e9"))
    return separator.join(value)


def _substring(meter: Meter, value: Any, start: Any, end: Any = None) -> str:
    end = len(value) if end is None and isinstance(value, str) else end
    if not isinstance(value, str) or not all(type(bound) is int for bound in (start, end)):
        raise Failed("substring needs a string and one or two ints")
    if not 0 <= start <= end <= len(value):
        raise Failed(f"there is no substring from {start} to {end} in {len(value)} characters")
    meter.grow(text_bytes(end - start, value))
    return value[start:end]


FUNCTIONS: dict[str, Function] = {
    "size": Function(call=_size, arguments=(1,), free=True, gives="int"),
    "int": Function(call=_int, arguments=(1,), method=False, free=True, gives="int"),
    "double": Function(call=_double, arguments=(1,), method=False, free=True, gives="double"),
    "string": Function(call=_string, arguments=(1,), method=False, free=True, gives="string"),
    "bool": Function(call=_bool, arguments=(1,), method=False, free=True, gives="bool"),
    "dyn": Function(call=lambda _meter, value: value, arguments=(1,), method=False, free=True),
    "matches": Function(
        call=_of_strings(lambda meter, text, pattern: matches(text, pattern, meter)),
        arguments=(2,),
        free=True,
        gives="bool",
    ),
    "contains": Function(call=_of_strings(lambda _meter, x, y: y in x), arguments=(2,), gives="bool"),
    "startsWith": Function(call=_of_strings(lambda _meter, x, y: x.startswith(y)), arguments=(2,), gives="bool"),
    "endsWith": Function(call=_of_strings(lambda _meter, x, y: x.endswith(y)), arguments=(2,), gives="bool"),
    "lowerAscii": Function(call=_changed(_lower), arguments=(1,), gives="string"),
    "upperAscii": Function(call=_changed(_upper), arguments=(1,), gives="string"),
    "trim": Function(call=_changed(str.strip), arguments=(1,), gives="string"),
    "replace": Function(call=_of_strings(_replace), arguments=(3,), gives="string"),
    "split": Function(call=_of_strings(_split), arguments=(2,), gives="list"),
    "join": Function(call=_join, arguments=(1, 2), gives="string"),
    "substring": Function(call=_substring, arguments=(2, 3), gives="string"),
}
