import functools
import sys

import httpx
import pytest

from citadel_client import Citadel
from citadel_client.cli import app as command
from citadel_client.cli import options
from tests.unit.client.double import AT_ONCE, talk_async, talk_sync


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in ("CITADEL_API_URL", "CITADEL_API_KEY", "CITADEL_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=[talk_sync, talk_async], ids=["sync", "async"])
def talk(request):
    """Use the blocking and the asyncio client: `talk(double, lambda client: client.embed("x"))`."""
    return request.param


@pytest.fixture
def citadel(monkeypatch, capsysbinary, double):
    """Run the command and return its exit code, standard output and standard error."""
    transport = httpx.MockTransport(double.handle)
    monkeypatch.setattr(options, "Citadel", functools.partial(Citadel, transport=transport))
    monkeypatch.setattr(options, "BRIEF", AT_ONCE)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["citadel", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            command.main()
        captured = capsysbinary.readouterr()
        return int(end.value.code), captured.out.decode(), captured.err.decode()

    return run
