"""Timestamps: aware UTC, ISO 8601."""

from datetime import UTC, datetime


def utc_now() -> str:
    """Return the current time, such as `2026-01-31T12:00:00.123456+00:00`."""
    return datetime.now(UTC).isoformat()


def from_epoch(seconds: float) -> str:
    """Return the same form of seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
