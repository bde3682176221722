"""The share of requests that begin a trace of their own, by route: polls are many and tell little."""

import random
import re
from collections.abc import Callable, Iterable, Mapping

import structlog

log = structlog.get_logger(__name__)
POLLED = 0.01
POLLS: Mapping[str, float] = dict.fromkeys(
    (
        "GET /v1/runs",
        "GET /v1/runs/{run_id}",
        "GET /v1/runs/{run_id}/events",
        "GET /v1/runs/{run_id}/steps/{step_id}",
        "GET /v1/tasks/{task_id}",
        "GET /v1/health",
        "GET /v1/history/{kind}",
        "GET /v1/queues",
        "GET /v1/workers",
        "GET /v1/cache",
        "GET /v1/models",
        "GET /v1/dead-letters",
    ),
    POLLED,
)
"""Routes that programs and dashboards ask again and again. A request of any other route begins a trace."""
UNTRACED = frozenset({"/livez", "/readyz", "/metrics", "/docs", "/openapi.json"})
"""Paths that are never traced: probes, scrapes and the documentation."""
_PARAMETER = re.compile(r"\\\{\w+\\\}")


class RouteSampling:
    """Decides which requests begin a trace; one that continues its caller's trace is not asked about.

    Args:
        ratios: Shares between 0 and 1 by method and route, such as `GET /v1/runs/{run_id}`, before those of `POLLS`.
        draw: Returns a random number of at least 0 and less than 1.
    """

    def __init__(self, ratios: Mapping[str, float], draw: Callable[[], float] = random.random) -> None:
        merged = {**POLLS, **ratios}
        self._fixed = {route: ratio for route, ratio in merged.items() if "{" not in route}
        self._patterns = [(_pattern(route), ratio) for route, ratio in merged.items() if "{" in route]
        self._draw = draw

    def begins_trace(self, method: str, path: str) -> bool:
        """Return whether a request of this method and path begins a trace."""
        ratio = self._ratio(f"{method} {path}")
        return ratio >= 1 or self._draw() < ratio

    def _ratio(self, asked: str) -> float:
        if (fixed := self._fixed.get(asked)) is not None:
            return fixed
        for pattern, ratio in self._patterns:
            if pattern.fullmatch(asked):
                return ratio
        return 1.0


def warn_of_unknown(ratios: Mapping[str, float], routes: Iterable[str]) -> None:
    """Log the keys of `ratios` that are not routes of the API, such as misspelt ones."""
    if unknown := sorted(ratios.keys() - set(routes)):
        log.warning("trace_ratios_of_no_route", routes=unknown, setting="CITADEL_API__TRACE_RATIOS")


def _pattern(route: str) -> re.Pattern[str]:
    return re.compile(_PARAMETER.sub("[^/]+", re.escape(route)))
