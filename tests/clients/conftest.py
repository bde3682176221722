"""The server that all clients call, and an environment in which none of them calls home."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.clients.support import FAULTS, Call, Citadel, serving

QUIET = {
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
}
STOP_S = 60


def pytest_configure() -> None:
    """Silence the clients before any of them is imported."""
    os.environ.update(QUIET)
    for name in [name for name in os.environ if name.startswith(("OPENAI_", "AZURE_OPENAI_"))]:
        del os.environ[name]


@pytest.fixture(scope="session")
def citadel() -> Iterator[Citadel]:
    """The server, healthy; its logs hold no secret and no text in the end."""
    with serving() as process:
        line = process.stdout.readline()
        if not line:
            pytest.exit(f"the server did not start, see above: exit code {process.wait(STOP_S)}", 1)
        yield Citadel(**json.loads(line))
        process.stdin.close()
        assert process.wait(STOP_S) == 0, "a process wrote a secret or a text; it is named above"


@pytest.fixture
def fault(request: pytest.FixtureRequest, citadel: Citadel) -> Iterator[Call]:
    """A call that fails in the way that the parameter names."""
    yield replace(FAULTS[request.param](citadel), name=request.param)
    citadel.recover()
