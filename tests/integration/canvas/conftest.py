"""Fixtures of the tests of canvas: Citadel's workers, and a client with a worker of its own."""

from contextlib import closing

import pytest

from tests.support.canvas import CanvasClient, ClientWorker


@pytest.fixture(scope="module")
def client(platform):
    """A bare Celery client, one worker of each kind, and the client's own worker."""
    platform.orchestration()
    platform.embeddings()
    with closing(ClientWorker(platform.redis.url)), closing(CanvasClient(platform)) as client:
        yield client
