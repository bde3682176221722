"""Proxies, certificates and credentials of outgoing calls."""

import ssl

import pytest
from pydantic import ValidationError

from citadel_common.outbound import route_to
from citadel_common.redaction import secrets_of
from citadel_common.settings.embeddings import BackendSettings
from citadel_common.settings.llm import EndpointSettings
from citadel_common.settings.qdrant import QdrantSettings
from citadel_contracts.outbound import check_environment, proxy_of, trust
from tests.support.private_ca import PrivateAuthority

PROXY = "http://proxy:3128"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A private authority."""
    return PrivateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("https://host/v1", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://host/v1", {"https_proxy": PROXY, "HTTPS_PROXY": "http://other"}, PROXY),
        ("http://host/v1", {"HTTPS_PROXY": PROXY}, None),
        ("http://host/v1", {"HTTP_PROXY": PROXY}, PROXY),
        ("http://host/v1", {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None),
        ("http://host/v1", {"ALL_PROXY": PROXY}, PROXY),
        ("https://host/v1", {"ALL_PROXY": "http://other", "HTTPS_PROXY": PROXY}, PROXY),
        ("https://host/v1", {"HTTPS_PROXY": " "}, None),
        ("https://host/v1", {"HTTPS_PROXY": "proxy:3128"}, PROXY),
        ("https://host/v1", {"HTTPS_PROXY": "HTTP://me:p%40ss@PROXY:3128/"}, "http://me:p%40ss@proxy:3128"),
        ("http://127.0.0.1:11434", {"ALL_PROXY": PROXY}, None),
        ("http://127.8.0.1:11434", {"ALL_PROXY": PROXY}, None),
        ("http://localhost:11434", {"ALL_PROXY": PROXY}, None),
        ("http://ollama.localhost:11434", {"ALL_PROXY": PROXY}, None),
        ("http://[::1]:11434", {"ALL_PROXY": PROXY}, None),
        ("http://[::ffff:127.0.0.1]:11434", {"ALL_PROXY": PROXY}, None),
    ],
)
def test_a_call_takes_the_proxy_of_its_scheme_and_none_to_loopback(url, environment, proxy):
    assert proxy_of(url, environment) == proxy


@pytest.mark.parametrize(
    ("exempt", "url"),
    [
        ("*", "https://host"),
        ("host", "https://host"),
        ("HOST", "https://host"),
        ("other, host", "https://host"),
        ("other host", "https://host"),
        ("example.com", "https://example.com"),
        ("example.com", "https://a.b.example.com"),
        (".example.com", "https://a.example.com"),
        (".example.com", "https://example.com"),
        ("*.example.com", "https://a.example.com"),
        ("example.com.", "https://a.example.com"),
        ("example.com", "https://a.example.com."),
        ("host:443", "https://host"),
        ("host:8000", "http://host:8000"),
        ("http://host", "http://host"),
        ("10.0.0.7", "http://10.0.0.7:11434"),
        ("10.0.0.0/8", "http://10.200.3.4"),
        ("10.0.0.7/8", "http://10.200.3.4"),
        ("2001:db8::1", "http://[2001:db8::1]:11434"),
        ("[2001:db8::1]", "http://[2001:db8:0:0::1]:11434"),
        ("[2001:db8::1]:11434", "http://[2001:db8::1]:11434"),
        ("2001:db8::/32", "http://[2001:db8:1::9]"),
    ],
)
def test_no_proxy_exempts_hosts_suffixes_ports_and_networks(exempt, url):
    assert proxy_of(url, {"ALL_PROXY": PROXY, "NO_PROXY": exempt}) is None


@pytest.mark.parametrize(
    ("exempt", "url"),
    [
        ("", "https://host"),
        (",, ,", "https://host"),
        ("host", "https://otherhost"),
        ("example.com", "https://badexample.com"),
        ("example.com", "https://example.com.evil.test"),
        ("host:8000", "https://host"),
        ("10.0.0.0/8", "http://11.0.0.1"),
        ("10.0.0.0/8", "http://host"),
        ("10.0.0.1", "http://10.0.0.10"),
        ("10.0.0.0/99", "http://10.0.0.1"),
        ("2001:db8::/32", "http://[2001:db9::1]"),
        (".", "https://host"),
    ],
)
def test_no_proxy_exempts_no_other_host(exempt, url):
    assert proxy_of(url, {"ALL_PROXY": PROXY, "NO_PROXY": exempt}) == PROXY


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"ALL_PROXY": "socks5://me:geheim@proxy"}, "ALL_PROXY must name an http:// or https:// proxy"),
        ({"https_proxy": "http://me:geheim@"}, "https_proxy names no host"),
        ({"HTTP_PROXY": "http://me:geheim@proxy:port"}, "HTTP_PROXY has a host or port that cannot be read"),
        ({"SSL_CERT_FILE": "/no/such.pem"}, "SSL_CERT_FILE: /no/such.pem cannot be read: No such file"),
        ({"SSL_CERT_FILE": "/etc/hostname"}, "SSL_CERT_FILE: /etc/hostname cannot be read: it holds no certificate"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_without_its_secret(environment, problem):
    with pytest.raises(ValueError, match=problem) as refused:
        check_environment(environment)
    assert "geheim" not in str(refused.value)


def test_certificates_of_a_file_and_of_a_directory_are_trusted_beside_others(authority, tmp_path):
    (tmp_path / "README").write_text("not a certificate")
    (tmp_path / "private.crt").write_bytes(authority.file.read_bytes())
    for environment in ({"SSL_CERT_FILE": str(authority.file)}, {"SSL_CERT_DIR": f"/no/such:{tmp_path}"}):
        check_environment(environment)
        context = trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), environment)
        assert ((("commonName", "authority"),),) in [found["subject"] for found in context.get_ca_certs()]


BASIC = {"authorization": "Basic bWU6cEBzczp3OnJkL8Ok"}


@pytest.mark.parametrize("url", ["http://me:p%40ss:w%3Ard%2F%C3%A4@host/v1", "https://me:p@ss:w:rd%2Fä@host/v1"])
def test_credentials_of_a_url_become_a_header_and_leave_the_url(url):
    settings = BackendSettings(kind="openai", urls=[url])
    route = route_to(settings.urls[0], settings)
    assert route.headers == BASIC
    assert "@" not in route.url + route.place
    assert route.hidden(f"{settings.urls[0]} Basic bWU6cEBzczp3OnJkL8Ok p@ss:w:rd/ä").count("***") == 3
    assert {"p@ss:w:rd/ä", "bWU6cEBzczp3OnJkL8Ok"} <= secrets_of(settings)
    assert "p@ss" not in repr(settings)


def test_a_key_in_the_query_is_sent_and_hidden():
    settings = EndpointSettings(url="https://host/v1?key=geheimes&api-version=2024-10-21", model="m")
    route = route_to(settings.url, settings)
    assert route.url == settings.url
    assert route.hidden("geheimes of 2024-10-21") == "*** of 2024-10-21"
    assert "geheimes" not in route.place
    assert "geheimes" in secrets_of(settings)


def test_a_proxy_of_the_settings_goes_before_the_environments(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "me:environs@elsewhere")
    urls = ["http://host", "http://127.0.0.1"]
    named = BackendSettings(kind="ollama", urls=urls, proxy="me:geheim@proxy:3128")
    assert {route_to(url, named).proxy for url in urls} == {"http://me:geheim@proxy:3128"}
    assert route_to(urls[0], named).place == "host by the proxy proxy:3128"
    assert route_to(urls[0], BackendSettings(kind="ollama", urls=urls, proxy="none")).proxy is None
    assert {"geheim", "environs"} <= secrets_of(named)
    assert "geheim" not in repr(named)


def test_further_headers_are_sent_beside_the_key():
    azure = EndpointSettings(url="https://x.example/openai", model="m", headers={"API_KEY": "azure-key"})
    assert route_to(azure.url, azure).headers == {"api-key": "azure-key"}
    assert "azure-key" in secrets_of(azure)
    assert "azure-key" not in repr(azure)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"api_key": "geheim", "url": "http://me:pw@host"}, "exclude each other"),
        ({"api_key": "geheim", "headers": {"Authorization": "geheim"}}, "exclude each other"),
        ({"headers": {"Host": "geheim"}}, "'host' is not a header that can be set"),
        ({"headers": {"a b": "geheim"}}, "'a b' is not a header that can be set"),
        ({"headers": {"x": "geheim\n"}}, "printable ASCII"),
        ({"proxy": "socks5://geheim@proxy"}, "must name an http:// or https:// proxy"),
        ({"proxy": "http://me:geheim@pro xy"}, "has a space"),
        ({"ca_file": "/etc/hostname"}, "ca_file: no usable PEM"),
        ({"cert_file": "/etc/hostname"}, "cert_file: no usable PEM"),
    ],
)
def test_settings_that_cannot_work_are_refused_without_their_secret(fields, problem):
    with pytest.raises(ValidationError, match=problem) as refused:
        EndpointSettings(**{"url": "http://host", "model": "m", **fields})
    first = refused.value.errors(include_input=False)[0]
    assert "geheim" not in first["msg"]


def test_qdrant_takes_credentials_of_a_proxy_beside_its_key():
    settings = QdrantSettings(url="https://me:geheim@host/qdrant/", api_key="key", ca_file=None)
    assert settings.url == "https://me:geheim@host:6333/qdrant"
    assert "geheim" not in repr(settings)
