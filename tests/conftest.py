"""Fixtures for all tests."""

from hypothesis import HealthCheck, settings

from tests.support.fixtures import (
    double,
    fleet,
    letters,
    ollama,
    plain,
    postgres_dsn,
    postgres_server,
    redis_server,
    redis_url,
    store,
    worker,
)
from tests.support.platform_fixtures import doubles, platform, record

__all__ = [
    "double",
    "doubles",
    "fleet",
    "letters",
    "ollama",
    "plain",
    "platform",
    "postgres_dsn",
    "postgres_server",
    "record",
    "redis_server",
    "redis_url",
    "store",
    "worker",
]

# No files in the working directory, no judgement on how fast the machine is.
settings.register_profile("citadel", database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("citadel")
