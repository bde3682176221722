"""The schedule as it is when nobody changes it; hourly entries start at different minutes."""

from typing import Any

BUILT_IN: dict[str, dict[str, Any]] = {
    "health": {"task": "system_health_check", "every": "5m"},
    "metrics": {"task": "collect_system_metrics", "every": "1m"},
    "cache": {"task": "cleanup_expired_cache", "every": "1h"},
    "purge_runs": {"task": "citadel.purge_runs", "crontab": "10 * * * *"},
    "purge_results": {"task": "citadel.purge_results", "crontab": "20 * * * *"},
    "purge_dead_letters": {"task": "citadel.purge_dead_letters", "crontab": "30 * * * *"},
    "purge_orphans": {"task": "citadel.purge_orphans", "crontab": "40 * * * *"},
    "advise_vacuum": {"task": "citadel.advise_vacuum", "crontab": "50 3 * * *"},
}
"""Name → fields of the entry's settings."""

_TIMES = ("every", "crontab")


def merged(given: dict[str, Any]) -> dict[str, Any]:
    """The built-in entries with those given over them, field by field; a time given replaces either kind."""
    entries: dict[str, Any] = {name: dict(fields) for name, fields in BUILT_IN.items()}
    for name, fields in given.items():
        entries[name] = _over(entries.get(name, {}), fields) if isinstance(fields, dict) else fields
    return entries


def _over(fields: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    retimed = any(given.get(time) is not None for time in _TIMES)
    kept = {name: value for name, value in fields.items() if not (retimed and name in _TIMES)}
    return kept | given
