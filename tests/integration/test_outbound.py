"""Every server that Citadel calls, behind credentials, proxies and private certificate authorities."""

import asyncio

import pytest

from citadel_client import Citadel, CitadelApiError
from citadel_client.options import NEVER
from citadel_common.outbound import public_context
from citadel_common.settings.embeddings import BackendSettings
from citadel_common.settings.qdrant import QdrantSettings
from citadel_embeddings.backends.base import EmbedCall
from citadel_embeddings.backends.ollama import OllamaBackend
from citadel_embeddings.backends.openai import OpenAIBackend
from citadel_monitoring.health.check import HealthCheck, Limits
from citadel_monitoring.health.dependencies import dependencies
from citadel_monitoring.settings import MonitoringSettings
from citadel_orchestration.vectors.store import VectorStore
from tests.doubles.llm.requests import expected_answer
from tests.doubles.process import LlmProcess, OllamaProcess, QdrantProcess
from tests.integration.llm.asking import MODEL as LLM_MODEL
from tests.integration.llm.asking import ask, question
from tests.support.child import free_port
from tests.support.forward_proxy import ForwardProxy
from tests.support.gateway import gateway
from tests.support.planted import QDRANT_KEY, planted
from tests.support.private_ca import PrivateAuthority

pytestmark = pytest.mark.usefixtures("bare_environment")
MODEL = "all-minilm"
HOST = "servers.test"
"""A name that only the proxy can resolve."""
PASSWORD = planted("basic") + "@/ä"
QUOTED = planted("basic") + "%40%2F%C3%A4"
PROXY_PASSWORD = planted("proxy")


@pytest.fixture(scope="module")
def servers():
    """One server of each kind, by name."""
    with (
        OllamaProcess(models=(MODEL,)) as embedding,
        LlmProcess(models=(LLM_MODEL,)) as llm,
        QdrantProcess(api_key=QDRANT_KEY) as qdrant,
    ):
        yield {"ollama": embedding.url, "openai": f"{embedding.url}/v1", "llm": f"{llm.url}/v1", "qdrant": qdrant.url}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A private authority."""
    return PrivateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority):
    """Its certificate for the servers."""
    return authority.sign(HOST, "127.0.0.1")


async def embed(kind, url, settings):
    parsed = BackendSettings(kind=kind, urls=[url], **settings)
    backend = {"openai": OpenAIBackend, "ollama": OllamaBackend}[kind](parsed)
    try:
        reply = await backend.embed(parsed.urls[0], EmbedCall(model=MODEL, texts=["a"]), timeout=10)
        return len(reply.rows)
    finally:
        await backend.aclose()


async def collections(url, settings):
    store = VectorStore(QdrantSettings(url=url, api_key=QDRANT_KEY, **settings))
    try:
        await store.health()
        return await store.collections()
    finally:
        await store.aclose()


def use(name, url, **settings):
    """Call a server as the services do; raise what they raise."""
    if name == "qdrant":
        assert asyncio.run(collections(url, settings)) == {}
    elif name == "llm":
        assert ask(url, question("Hi"), **settings).text == expected_answer("Hi")
    else:
        assert asyncio.run(embed(name, url, settings)) == 1


def health(name, url, **settings):
    """What monitoring says of the server; None if it is up."""
    fields = {
        "qdrant": {"qdrant": {"url": url, "api_key": QDRANT_KEY, **settings}},
        "llm": {"llm": {"endpoints": {"main": {"url": url, "model": LLM_MODEL, **settings}}}},
    }.get(name, {"embeddings": {"backends": {"main": {"kind": name, "urls": [url], **settings}}}})
    parsed = MonitoringSettings.model_validate({"embeddings": {"backends": {"here": {"kind": "local"}}}} | fields)
    watched = [each for each in dependencies(parsed) if each.group not in {"broker", "results", "cache", "postgres"}]
    reports = asyncio.run(HealthCheck(watched, Limits(deadline=5.0, slow=60.0)).run())
    found = reports[watched[0].name]
    return None if found["status"] == "up" else found["detail"]


NAMES = pytest.mark.parametrize("name", ["ollama", "openai", "llm", "qdrant"])


@NAMES
class TestCredentialsInTheUrl:
    def test_they_are_sent_and_no_message_shows_them(self, servers, name):
        with gateway(servers[name], credentials=f"me:{PASSWORD}", mount="/gw") as (url, calls):
            use(name, url.replace("://", f"://me:{QUOTED}@"))
            assert health(name, url.replace("://", f"://me:{QUOTED}@")) is None
            assert calls.calls
            with pytest.raises(Exception, match=r"401|refuses the API key") as refused:
                use(name, url.replace("://", f"://me:{planted('wrong')}@"))
        assert planted("wrong") not in str(refused.value)

    def test_an_address_that_nobody_listens_on_is_named_without_them(self, name):
        url = f"http://me:{QUOTED}@127.0.0.1:{free_port()}"
        with pytest.raises(Exception, match=r"does not answer|silent") as failed:
            use(name, url)
        for said in (str(failed.value), health(name, url)):
            assert planted("basic") not in said


@NAMES
def test_an_unknown_authority_is_named_with_the_settings_that_help(servers, certificate, name):
    with gateway(servers[name], certificate=certificate) as (url, _):
        with pytest.raises(Exception, match="CA_FILE of the server or in SSL_CERT_FILE"):
            use(name, url)
        assert "SSL_CERT_FILE" in health(name, url)


@NAMES
@pytest.mark.parametrize("tls", [False, True], ids=["absolute form", "CONNECT"])
class TestProxies:
    def url(self, place, tls):
        scheme, host = ("https", HOST) if tls else ("http", HOST)
        return f"{scheme}://{host}:{place.rpartition(':')[2].partition('/')[0]}/gw"

    def test_the_environments_proxy_is_used_with_its_credentials(
        self, servers, authority, certificate, monkeypatch, name, tls
    ):
        with (
            gateway(servers[name], mount="/gw", certificate=certificate if tls else None) as (place, _),
            ForwardProxy(credentials=f"me:{PROXY_PASSWORD}") as proxy,
        ):
            url = self.url(place, tls)
            monkeypatch.setenv("ALL_PROXY", f"me:{PROXY_PASSWORD}@{proxy.place}")
            monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
            use(name, url)
            assert health(name, url) is None
            assert {request.split(" ")[0] == "CONNECT" for request in proxy.requests} == {tls}
            assert all(HOST in request for request in proxy.requests)
            monkeypatch.setenv("NO_PROXY", ".test")
            count = len(proxy.requests)
            with pytest.raises(Exception, match="does not answer"):
                use(name, url)
            assert len(proxy.requests) == count

    def test_a_proxy_that_refuses_or_is_away_is_named_without_its_credentials(self, servers, name, tls):
        with gateway(servers[name], mount="/gw") as (place, _), ForwardProxy(credentials="other:words") as proxy:
            url = self.url(place, tls)
            with pytest.raises(Exception, match=r"407|[Pp]roxy") as refused:
                use(name, url, proxy=f"http://me:{PROXY_PASSWORD}@{proxy.place}")
        with pytest.raises(Exception, match="does not answer") as failed:
            use(name, url, proxy=f"http://me:{PROXY_PASSWORD}@127.0.0.1:{free_port()}")
        for said in (str(refused.value), str(failed.value)):
            assert PROXY_PASSWORD not in said


@NAMES
class TestPrivateAuthorities:
    @pytest.mark.parametrize("way", ["ca_file", "SSL_CERT_FILE", "SSL_CERT_DIR"])
    def test_a_server_is_trusted_by_setting_and_by_environment(
        self, servers, authority, certificate, monkeypatch, tmp_path, name, way
    ):
        (tmp_path / "private.pem").write_bytes(authority.file.read_bytes())
        settings = {"ca_file": str(authority.file)} if way == "ca_file" else {}
        with gateway(servers[name], mount="/gw", certificate=certificate) as (url, _):
            with pytest.raises(Exception, match="does not answer"):
                use(name, url)
            assert "certificate verify failed" in health(name, url)
            if way != "ca_file":
                monkeypatch.setenv(way, str(authority.file if way == "SSL_CERT_FILE" else tmp_path))
                public_context.cache_clear()
            use(name, url, **settings)
            assert health(name, url, **settings) is None

    def test_a_client_certificate_is_presented(self, servers, authority, certificate, name):
        mine = authority.sign("client")
        settings = {"ca_file": str(authority.file), "cert_file": str(mine.file), "key_file": str(mine.key)}
        with gateway(servers[name], mount="/gw", certificate=certificate, clients=authority) as (url, _):
            use(name, url, **settings)
            assert health(name, url, **settings) is None
            with pytest.raises(Exception, match=r"does not answer|hung up"):
                use(name, url, ca_file=str(authority.file))


class TestTheSdk:
    """The client, whose server may be behind the same gateways; 404 is the answer of the server behind them."""

    def ask(self, url):
        with Citadel(url, retry=NEVER, timeout=10) as citadel, pytest.raises(CitadelApiError) as answered:
            citadel.queues()
        return answered.value

    def test_credentials_of_the_url_are_sent(self, servers):
        with gateway(servers["ollama"], credentials=f"me:{PASSWORD}", mount="/gw") as (url, calls):
            assert self.ask(url.replace("://", f"://me:{QUOTED}@")).status == 404
        assert calls.calls == ["GET /gw/v1/queues"]

    @pytest.mark.parametrize("tls", [False, True], ids=["absolute form", "CONNECT"])
    def test_proxies_are_used_and_exempt_networks_are_not(self, servers, authority, certificate, monkeypatch, tls):
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        with (
            gateway(servers["ollama"], host=HOST, certificate=certificate if tls else None) as (url, _),
            ForwardProxy(credentials=f"me:{PROXY_PASSWORD}") as proxy,
        ):
            monkeypatch.setenv("HTTPS_PROXY" if tls else "HTTP_PROXY", f"http://me:{PROXY_PASSWORD}@{proxy.place}")
            assert self.ask(url).status == 404
            assert len(proxy.requests) == 1
            monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,*.test")
            assert self.ask(url).status is None
            assert len(proxy.requests) == 1

    def test_an_unknown_authority_and_a_proxy_that_refuses_are_named(self, servers, certificate, monkeypatch):
        with gateway(servers["ollama"], certificate=certificate) as (url, _):
            assert "name its authority's certificate in SSL_CERT_FILE" in str(self.ask(url))
        with ForwardProxy(credentials="other:words") as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PROXY_PASSWORD}@{proxy.place}")
            said = str(self.ask(f"https://{HOST}"))
        assert "the proxy does not lead to" in said
        assert PROXY_PASSWORD not in said
