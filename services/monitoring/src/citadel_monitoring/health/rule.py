"""What the states of all services mean for the whole.

- `down`: a service that is required is down. Required are the broker, the result store, PostgreSQL, a Qdrant server
  where one is configured, and one URL of each embedding backend.
- `degraded`: anything else is down, or anything is slow.
- `ok`: all else. An embedded Qdrant counts as up: it lives and dies with the orchestration worker.
"""

from collections.abc import Iterable, Mapping

from citadel_contracts.monitoring import OverallStatus, ServiceHealth, ServiceStatus

EVERY_REDIS = ("broker", "results", "cache")


def overall(services: Iterable[tuple[str, bool, ServiceStatus]]) -> OverallStatus:
    """The state of the whole.

    Args:
        services: Group, whether the group is required, and state of each service. Those of one group stand in for
            each other.
    """
    states: dict[str, set[ServiceStatus]] = {}
    required: set[str] = set()
    for group, is_required, status in services:
        states.setdefault(group, set()).add(status)
        required |= {group} if is_required else set()
    if any(states[group] == {"down"} for group in required):
        return "down"
    return "degraded" if any(status in ("down", "slow") for found in states.values() for status in found) else "ok"


def is_up(services: Mapping[str, ServiceStatus], *names: str) -> bool:
    """Whether none of those is down."""
    return all(services[name] != "down" for name in names)


def seed_health(services: Mapping[str, ServiceStatus]) -> ServiceHealth:
    """The three booleans of the first version: each Redis answers, Qdrant does, PostgreSQL does."""
    return {
        "redis": is_up(services, *EVERY_REDIS),
        "qdrant": is_up(services, "qdrant"),
        "postgres": is_up(services, "postgres"),
    }
