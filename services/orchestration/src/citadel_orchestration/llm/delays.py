"""Delays that LLM servers ask for, in headers and bodies of errors, as seconds.

Sources: RFC 9110 (`Retry-After`); OpenAI's guide to rate limits (`x-ratelimit-reset-requests`: `1s`, `6m0s`, `120ms`)
and its clients (`retry-after-ms`); Azure (`x-ms-retry-after-ms`); Anthropic (`anthropic-ratelimit-…-reset`: RFC 3339);
OpenRouter (`X-RateLimit-Reset`: milliseconds since the epoch); `google.rpc.RetryInfo` (`retryDelay`: `36.5s`).
"""

import math
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from citadel_contracts.errors import seconds_of_retry_after, server_time

LONGEST = 86_400.0
_UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_PART = r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|us|µs|μs|ns|d|h|m|s)"
_DURATION = re.compile(rf"(?:{_PART}\s*)+", re.IGNORECASE)
_PARTS = re.compile(_PART, re.IGNORECASE)
_WORDS = re.compile(
    r"(?:try again|retry|available again|reset)\s+(?:in|after)\s+(?:about\s+)?"
    r"(\d+(?:\.\d+)?\s*(?:seconds?|secs?|minutes?|mins?|hours?)\b|(?:\d+(?:\.\d+)?\s*(?:ms|h|m|s)\s*)+)",
    re.IGNORECASE,
)
_LONG_UNITS = re.compile(r"\s*(h|m|s)(?:ours?|inutes?|ins?|econds?|ecs?)\b", re.IGNORECASE)
_EPOCH_MS, _EPOCH_S = 1e11, 1e8
_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms")
_RESET = re.compile(r"(?:x-)?(?:[a-z]+-)?ratelimit-(?:(?P<kind>[a-z-]+)-reset|reset(?:-(?P<kind2>[a-z-]+))?)")


def delay_asked_for(headers: Mapping[str, str], content: object, message: str) -> float | None:
    """Return the seconds that a server asks to wait, a day at most; None if it names none.

    The most explicit hint counts: a header for retries, then Google's RetryInfo, then the limit that is used up, then
    the words of the message.

    Args:
        headers: Headers of the response; their names in small letters.
        content: Its JSON; None if it has none.
        message: The server's words.
    """
    now = server_time(headers.get("date"), headers.get("age"))
    for hints in (_retry_headers(headers, now), _retry_info(content), _resets(headers, content, now), _said(message)):
        known = [hint for hint in hints if hint is not None]
        if known:
            return min(max(known[0], 0.0), LONGEST)
    return None


def _retry_headers(headers: Mapping[str, str], now: float) -> Iterator[float | None]:
    for name in _MILLISECONDS:
        milliseconds = _number(headers.get(name))
        yield None if milliseconds is None else milliseconds / 1000
    retry_after = headers.get("retry-after")
    yield seconds_of_retry_after(retry_after, headers.get("date"), headers.get("age"))
    yield duration(retry_after, now)


def _retry_info(content: object) -> Iterator[float | None]:
    error = content.get("error", content) if isinstance(content, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict) and "retryDelay" in detail:
            yield duration(detail["retryDelay"])


def _resets(headers: Mapping[str, str], content: object, now: float) -> Iterator[float | None]:
    """Yield when the limit that is used up is free again: of several, the last; of all, if none says it is used up."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for name, value in {**_quoted_headers(content), **headers}.items():
        match = _RESET.fullmatch(name)
        seconds = duration(value, now) if match else None
        if match is None or seconds is None:
            continue
        left = _number(headers.get(name.replace("reset", "remaining")))
        found[left is not None and left <= 0].append(seconds)
    known = found[True] or found[False]
    yield max(known) if known else None


def _quoted_headers(content: object) -> dict[str, str]:
    """Return the headers of the server behind a router, which OpenRouter puts into its errors."""
    for name in ("error", "metadata", "headers"):
        content = content.get(name) if isinstance(content, dict) else None
    return {str(name).lower(): str(value) for name, value in content.items()} if isinstance(content, dict) else {}


def _said(message: str) -> Iterator[float | None]:
    found = _WORDS.search(message)
    yield duration(_LONG_UNITS.sub(lambda unit: unit[1], found[1])) if found else None


def duration(value: object, now: float | None = None) -> float | None:
    """Return the seconds in a number, a duration (`6m0s`), a time since the epoch, or an ISO date; None for others.

    Args:
        value: As a server sent it.
        now: The server's time in seconds since the epoch; None for this host's.
    """
    now = time.time() if now is None else now
    if isinstance(value, dict):  # a protobuf duration
        value = value.get("seconds")
    text = str(value).strip() if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    number = _number(text)
    if number is not None:
        return _since_epoch(number, now)
    if _DURATION.fullmatch(text):
        return sum(float(amount) * _UNITS[unit.lower()] for amount, unit in _PARTS.findall(text))
    return _until(text, now)


def _since_epoch(number: float, now: float) -> float:
    if number >= _EPOCH_MS:
        return number / 1000 - now
    return number - now if number >= _EPOCH_S else number


def _until(text: str, now: float) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now
    except (ValueError, OverflowError):
        return None


def _number(value: object) -> float | None:
    try:
        number = float(str(value)) if value is not None else math.nan
    except ValueError:
        return None
    return None if math.isnan(number) else number
