"""Exponential backoff with full jitter and a cap."""

import random


def full_jitter(attempt: int, *, base: float, factor: float, cap: float) -> float:
    """Return the seconds to wait before retry `attempt` (0 is the first): uniform in [0, min(cap, base·factorⁿ)].

    Source: the "full jitter" strategy, M. Brooker, Exponential Backoff and Jitter, 2015.
    """
    try:
        bound = min(cap, base * factor**attempt)
    except OverflowError:
        bound = cap
    return random.uniform(0.0, bound)  # noqa: S311  (jitter needs no secrecy)
