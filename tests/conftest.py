"""Fixtures for all tests."""

from tests.support.fixtures import double, fleet, letters, ollama, plain, redis_server, redis_url, store, worker

__all__ = ["double", "fleet", "letters", "ollama", "plain", "redis_server", "redis_url", "store", "worker"]
