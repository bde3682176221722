"""The stack that the tests of this directory share."""

from collections.abc import Iterator

import pytest

from tests.deploy.engine import require_engine
from tests.deploy.stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start the whole stack and wait until it is healthy; without a Docker engine, skip."""
    require_engine()
    with running_stack(tmp_path_factory.mktemp("stack")) as found:
        yield found
