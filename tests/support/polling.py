"""Waiting for a condition, the same way in all tests."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PAUSE = 0.02


def eventually(condition: Callable[[], T], timeout: float = 60.0) -> T:
    """Return the condition's first truthy answer; `timeout` seconds only bound the failure."""
    end = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s; last answer: {answer!r}")
        time.sleep(PAUSE)
    return answer
