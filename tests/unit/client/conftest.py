import pytest

from tests.unit.client.double import talk_async, talk_sync


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in ("CITADEL_API_URL", "CITADEL_API_KEY", "CITADEL_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=[talk_sync, talk_async], ids=["sync", "async"])
def talk(request):
    """Use a client of either colour: `talk(double, lambda client: client.embed("x"))`."""
    return request.param
