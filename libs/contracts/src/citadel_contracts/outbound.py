"""Outgoing calls as the environment wants them: their proxies, and the certificates to trust.

`HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY` name proxies, `NO_PROXY` the hosts that are called without one;
`SSL_CERT_FILE` and `SSL_CERT_DIR` name certificates besides the public ones. A call to this machine's loopback never
takes a proxy of the environment, which could not reach it.
"""

import base64
import ipaddress
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from citadel_contracts.base_urls import SCHEMES, http_url

_PORTS = {"http": 80, "https": 443}
_PROXIES = ("https_proxy", "http_proxy", "all_proxy")
PROXY_VARIABLES = (*_PROXIES, *map(str.upper, _PROXIES))
_SEPARATORS = re.compile(r"[\s,;|]+")

SHORTEST_KEY = 6
"""Characters of the shortest value of a query that may be a key."""

Environment = Mapping[str, str]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_environment(environment: Environment) -> None:
    """Check the variables.

    Raises:
        ValueError: One of them cannot be used; the message names it and shows no password.
    """
    for name in _PROXIES:
        variable, value = _variable(environment, name)
        try:
            if value:
                proxy_url(value)
        except ValueError as error:
            raise ValueError(f"{variable} {error}") from None
    for file in _named_files(environment):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
        except OSError as error:
            raise ValueError(f"SSL_CERT_FILE: {file} cannot be read: {_words(error)}") from None


def proxy_of(url: str, environment: Environment) -> str | None:
    """Return the URL of the proxy that a call takes, with its credentials; None for a direct call."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    value = _variable(environment, f"{parts.scheme}_proxy")[1] or _variable(environment, "all_proxy")[1]
    if not value or is_loopback(host):
        return None
    port = parts.port or _PORTS.get(parts.scheme, 0)
    entries = _SEPARATORS.split(_variable(environment, "no_proxy")[1].lower())
    return None if any(_exempts(entry, host, port) for entry in entries if entry) else proxy_url(value)


def proxy_url(value: str) -> str:
    """Return the URL of a proxy, which may be written without a scheme.

    Raises:
        ValueError: It is not usable; the message does not repeat it.
    """
    url = value.strip() if "://" in value else f"http://{value.strip()}"
    if url.partition("://")[0].lower() not in SCHEMES:
        raise ValueError("must name an http:// or https:// proxy; SOCKS is not spoken")
    return http_url(url)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is reachable from this machine only."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return address is not None and (mapped or address).is_loopback


def trust(context: ssl.SSLContext, environment: Environment) -> ssl.SSLContext:
    """Let a context also trust the certificates of the system and of the environment; return it."""
    context.load_default_certs()
    for file in (*_named_files(environment), *_files_of_directories(environment)):
        with suppress(OSError):  # a directory may hold other files, too
            context.load_verify_locations(cafile=file)
    return context


def is_untrusted(error: BaseException) -> bool:
    """Return whether a call failed because no trusted authority has signed the server's certificate."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def without_credentials(url: str) -> tuple[str, str | None]:
    """Return a URL without its user and password, and the `Authorization` that they make, if any."""
    parts = urlsplit(url)
    written, _, place = parts.netloc.rpartition("@")
    bare = parts._replace(netloc=place).geturl()
    if not written:
        return bare, None
    user, _, password = written.partition(":")
    pair = f"{unquote(user)}:{unquote(password)}".encode()
    return bare, f"Basic {base64.b64encode(pair).decode('ascii')}"


def query_secrets(url: str) -> tuple[str, ...]:
    """Return the values of a URL's query that may be keys: all but short ones and the version of an API."""
    pairs = parse_qsl(urlsplit(url).query)
    return tuple(value for name, value in pairs if name != "api-version" and len(value) >= SHORTEST_KEY)


def shown(url: str) -> str:
    """Return a URL for messages: without user, password and query, any of which may be secret."""
    parts: SplitResult = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _variable(environment: Environment, name: str) -> tuple[str, str]:
    """Return the name that a variable has there, in lower case or capitals, and its value; empty if it is not set."""
    for variable in (name, name.upper()):
        value = environment.get(variable, "").strip()
        # a CGI server puts a request's header Proxy into HTTP_PROXY
        if value and not (variable == "HTTP_PROXY" and "REQUEST_METHOD" in environment):
            return variable, value
    return name.upper(), ""


def _exempts(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of NO_PROXY names a host: by name, suffix, address or network, perhaps with a port."""
    if entry == "*":
        return True
    name, given_port = _place(entry)
    if given_port and given_port != str(port):
        return False
    address = _address(host)
    if address is None:
        suffix = name.removeprefix("*").removeprefix(".").rstrip(".")
        return bool(suffix) and f".{host.rstrip('.')}".endswith(f".{suffix}")
    with suppress(ValueError):
        network = ipaddress.ip_network(name, strict=False)
        return address in network
    return False


def _place(entry: str) -> tuple[str, str]:
    """Return host or network, and the port if there is one, of `host:port`, `[::1]:port`, `::1` or `http://host`."""
    place = entry.partition("://")[2] or entry
    if place.startswith("["):
        name, _, port = place[1:].partition("]")
        return name, port.removeprefix(":")
    name, _, port = place.partition(":")
    return (name, port) if place.count(":") == 1 else (place, "")


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _named_files(environment: Environment) -> Iterator[str]:
    if file := environment.get("SSL_CERT_FILE"):
        yield file


def _files_of_directories(environment: Environment) -> Iterator[str]:
    for name in environment.get("SSL_CERT_DIR", "").split(":"):
        with suppress(OSError):
            yield from (str(file) for file in sorted(Path(name).iterdir()) if name and file.is_file())


def _words(error: OSError) -> str:
    return "it holds no certificate (PEM)" if isinstance(error, ssl.SSLError) else error.strerror or str(error)
