"""The JSON value in an answer, wherever it stands: alone, in a fence, in prose, after reasoning."""

import json
import re
from collections.abc import Callable, Iterator

from citadel_common.text import printable
from citadel_contracts import json_text
from citadel_orchestration.llm import reasoning

_LANDMARK = re.compile(
    rf"(?P<opening>{reasoning.OPENING.pattern})|(?P<closing>{reasoning.CLOSING.pattern})"
    r"|(?P<fence>```[^\n`{\[]*\n?)|(?P<value>[{\[])",
    re.IGNORECASE,
)
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_BEGINS_OBJECT = re.compile(r'\{\s*"')
_MOST_TOKENS = 1_000_000
_MOST_VALUES = 100
_FENCE = "```"
_MOST_SHOWN = 500


def _integer(digits: str) -> int:
    """Return an integer; one of more than 64 bits, which is refused anyway, is cut to where it still is one."""
    return int(digits[:21])


_DECODER = json.JSONDecoder(parse_int=_integer)
"""Takes numbers that cannot be kept, so that they are refused with their place."""


def value_in(text: str, problems_of: Callable[[object], list[str]]) -> tuple[object, list[str]]:
    """Return the one JSON value of an answer that fits, and no problems; else None and what is wrong.

    Objects and lists may stand in prose; texts and numbers only alone or in a fence. What reasoning contains does not
    count, nor does a part of something that is not JSON as a whole.

    Args:
        text: The answer.
        problems_of: Returns why a value does not fit.
    """
    values = _values(text)
    if not values:
        return None, [f"it is not JSON: {_reason(text)}"]
    judged = [(value, _unstorable(value) or problems_of(value)) for value in values]
    fitting = [value for value, problems in judged if not problems]
    if len(fitting) == 1:
        return fitting[0], []
    if fitting:
        return None, [f"it is not one JSON value: {len(fitting)} different ones fit; give only one"]
    return None, judged[-1][1]


def _values(text: str) -> list[object]:
    """Return the different values of an answer, in their order."""
    alone = _whole(text) or _whole(reasoning.split(text)[1])
    found: dict[str, object] = {}
    for value in alone or _standing_in(text):
        found.setdefault(_key(value), value)
        if len(found) == _MOST_VALUES:
            break
    return list(found.values())


def _key(value: object) -> str:
    try:
        return json.dumps(value, sort_keys=True)
    except RecursionError:
        return str(id(value))


def _whole(text: str) -> list[object]:
    """Return the value that the text is, in a list; an empty list if it is something else."""
    bare = text.strip("\ufeff \t\r\n")
    try:
        value, end = _DECODER.raw_decode(bare)
    except (ValueError, RecursionError):
        return []
    return [value] if end == len(bare) else []


def _reason(text: str) -> str:
    try:
        _DECODER.decode(text.strip())
    except RecursionError:
        return f"it has more than {json_text.MOST_LEVELS} levels of lists and objects"
    except ValueError as error:
        return str(error)
    return "there is no value after the reasoning"


def _standing_in(text: str) -> list[object]:
    found: list[object] = []
    for value in _Scan(text):
        if value is _FORGET:
            found.clear()
        else:
            found.append(value)
    return found


_FORGET = object()
"""Says that all before it was reasoning."""


class _Scan:
    """One pass over a text for the values in it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._budget = _MOST_TOKENS

    def __iter__(self) -> Iterator[object]:
        position = 0
        while landmark := _LANDMARK.search(self._text, position):
            position = landmark.end()
            if landmark["closing"]:
                yield _FORGET
            elif landmark["opening"]:
                closed = reasoning.CLOSING.search(self._text, position)
                position = closed.end() if closed else len(self._text)
            else:
                values, position = self._fence(position) if landmark["fence"] else self._value(landmark.start())
                yield from values

    def _fence(self, start: int) -> tuple[list[object], int]:
        """Return the value of a fence and its end; without a value, go on inside it."""
        end = self._text.find(_FENCE, start)
        values = _whole(self._text[start:end]) if end >= 0 else []
        return values, end + len(_FENCE) if values else start

    def _value(self, start: int) -> tuple[list[object], int]:
        """Return the value that begins at a bracket and its end; what only looks like one is left out whole."""
        try:
            value, end = _DECODER.raw_decode(self._text, start)
        except (ValueError, RecursionError):
            return [], self._end_of_brackets(start)
        return [value], end

    def _end_of_brackets(self, start: int) -> int:
        """Return where the bracket at `start` is closed; if it never is, the next place that can begin a value."""
        depth = 0
        for token in _TOKENS.finditer(self._text, start):
            self._budget -= 1
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
            if depth == 0:
                return token.end()
            if self._budget <= 0:
                return len(self._text)
        return len(self._text) if _BEGINS_OBJECT.match(self._text, start) else start + 1


def _unstorable(value: object) -> list[str]:
    try:
        json_text.check(value, levels=json_text.MOST_LEVELS)
    except json_text.UnusableValue as error:
        return [f"it has something that cannot be kept exactly: {printable(str(error), _MOST_SHOWN)}"]
    return []
