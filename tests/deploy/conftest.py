"""The stack that the tests of this directory share."""

from collections.abc import Iterator

import pytest

from tests.deploy.engine import require_engine
from tests.deploy.load import store_documents
from tests.deploy.stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start the whole stack with documents, healthy; skip where the engine, an image or a model's file is missing."""
    require_engine()
    with running_stack(tmp_path_factory.mktemp("stack")) as found:
        with found.client() as citadel:
            store_documents(citadel)
        yield found
