"""HTTP clients of the servers that Citadel calls: credentials, proxy and certificates of each, built in one place."""

import functools
import os
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from citadel_common.redaction import passwords_of
from citadel_common.settings.server import DIRECT, ServerSettings
from citadel_contracts import outbound

STARS = "***"
SHORTEST = 2
"""Characters of the shortest secret that messages hide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """The way to a URL.

    Attributes:
        url: The URL, without credentials.
        headers: Headers of the server's own: those of the settings, and the URL's credentials.
        proxy: URL of the proxy, with its credentials; None for a direct call.
        secrets: Texts that no message may show.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    proxy: str | None = None
    secrets: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether the server is called without TLS and without a proxy."""
        return self.proxy is None and self.url.startswith("http:")

    @property
    def place(self) -> str:
        """Host and port for messages, and those of the proxy."""
        return urlsplit(self.url).netloc + self.by

    @property
    def by(self) -> str:
        """The proxy, as messages add it to the server; empty without one."""
        return f" by the proxy {urlsplit(outbound.shown(self.proxy)).netloc}" if self.proxy else ""

    def hidden(self, text: str) -> str:
        """Return a text with stars for secrets: servers may repeat what they were sent."""
        for secret in self.secrets:
            text = text.replace(secret, STARS)
        return text


def route_to(url: str, settings: ServerSettings, *, key: tuple[str, str] | None = None) -> Route:
    """Return the way to a URL.

    Args:
        url: The URL, perhaps with credentials.
        settings: Headers, certificates and proxy.
        key: Name and value of the header that carries the API key.
    """
    bare, authorization = outbound.without_credentials(url)
    headers = dict([key] if key else [])
    headers |= {"authorization": authorization} if authorization else {}
    headers |= {name: value.get_secret_value() for name, value in settings.headers.items()}
    proxy = _proxy(bare, settings)
    known = {*passwords_of(url), *passwords_of(proxy or ""), *outbound.query_secrets(url)}
    known |= {value.rpartition(" ")[2] for value in headers.values()}
    secrets = sorted((text for text in known if len(text) >= SHORTEST), key=len, reverse=True)
    return Route(url=bare, headers=headers, proxy=proxy, secrets=tuple(secrets))


def _proxy(url: str, settings: ServerSettings) -> str | None:
    if settings.proxy is None:
        return outbound.proxy_of(url, os.environ)
    named = settings.proxy.get_secret_value()
    return None if named == DIRECT else named


def client_options(route: Route, settings: ServerSettings) -> dict[str, Any]:
    """Return the options of an httpx client for a route; it reads nothing more from the environment."""
    context = tls_context(settings) if route.url.startswith("https:") else _no_tls()
    return {"verify": context, "trust_env": False, "follow_redirects": False, "proxy": _httpx_proxy(route.proxy)}


def _httpx_proxy(url: str | None) -> httpx.Proxy | None:
    if url is None:
        return None
    return httpx.Proxy(url, ssl_context=public_context() if url.startswith("https:") else None)


@functools.cache
def public_context() -> ssl.SSLContext:
    """Return the context that trusts public authorities, those of the system, and those of the environment."""
    return outbound.trust(httpx.create_ssl_context(trust_env=False), os.environ)


@functools.cache
def _no_tls() -> ssl.SSLContext:
    """Return a context that trusts nobody: loading certificates takes time, which a plain call need not wait for."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def tls_context(settings: ServerSettings) -> ssl.SSLContext:
    """Return the context of a server: its own authorities and client certificate, or the common ones."""
    if settings.ca_file is None and settings.cert_file is None:
        return public_context()
    if settings.ca_file is not None:
        context = ssl.create_default_context(cafile=str(settings.ca_file))
    else:
        context = outbound.trust(httpx.create_ssl_context(trust_env=False), os.environ)
    settings.load_client_certificate(context)
    return context


def reason(error: BaseException) -> str:
    """Return why a connection failed; an unknown authority comes with the remedy."""
    words = str(error) or type(error).__name__
    remedy = "; name the authority's certificate in CA_FILE of the server or in SSL_CERT_FILE"
    return words + remedy * outbound.is_untrusted(error)
