"""Text from other servers, made fit to be stored and shown.

PostgreSQL's text and jsonb take no NUL, and half of a surrogate pair has no UTF-8. Errors pass through `printable`
(in `CitadelError`), outputs of steps through `storable_value` (in the engine), so nothing else needs to think of it.
"""

import re
from typing import Any

REPLACEMENT = "\ufffd"
MESSAGE_LIMIT = 4000
_NOTE = 40
_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def storable(text: str) -> str:
    """Return a text with both halves of a surrogate pair joined, and U+FFFD for a NUL or half of a pair."""
    return _joined(text).replace("\x00", REPLACEMENT)


def storable_value(value: Any) -> Any:
    """Return a JSON value whose texts, names included, are all storable; other objects stay as they are."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(name) if isinstance(name, str) else name: storable_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable_value(item) for item in value]
    return value


def printable(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Return a text fit for a message: of `limit` characters at most, with control characters as escapes.

    Tab and newline stay. The rest could move a terminal's cursor, or not be stored at all.
    """
    cut = text if len(text) <= limit else f"{text[: limit - _NOTE]}… ({len(text)} characters)"
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", _joined(cut))


def _joined(text: str) -> str:
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
