"""Fixtures for all tests, and the search for disclosures after each of them."""

import gc
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.disclosure import DISCLOSURES
from tests.support.fixtures import (
    bare_environment,
    dead_letters,
    double,
    fleet,
    ollama,
    plain,
    postgres_dsn,
    postgres_server,
    redis_server,
    redis_url,
    store,
    worker,
)
from tests.support.platform_fixtures import db, doubles, platform

__all__ = [
    "bare_environment",
    "db",
    "dead_letters",
    "double",
    "doubles",
    "fleet",
    "ollama",
    "plain",
    "platform",
    "postgres_dsn",
    "postgres_server",
    "redis_server",
    "redis_url",
    "store",
    "worker",
]

collect_ignore = ["clients"]
"""They run in an environment of their own: `make test-clients`."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, None, None]:
    """Collect tests without the garbage collector, which never needs to look at them: they live until the end."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    """Fail a test if it, or the end of its module's processes, disclosed something."""
    yield
    found = DISCLOSURES.taken()
    assert not found, "\n".join(f"{each.what} is in the {each.source}: {each.line}" for each in found)


# No files in the working directory, no judgement on how fast the machine is.
settings.register_profile("citadel", database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("citadel")
