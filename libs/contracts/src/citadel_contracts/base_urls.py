"""URLs of servers in settings: which ones are usable, and where the routes of OpenAI's and Ollama's protocol lie."""

import functools
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

from pydantic_core import Url

SCHEMES = ("http", "https")
_EXAMPLE = "https://host/v1 or http://127.0.0.1:11434"
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
_HOST_NAME = re.compile(r"[a-z0-9._-]+")
_KEPT = "/%:@!$&'()*+,;=~?[]"
"""Signs of a path or query that need no escape; an escape that stands there already is kept."""
_OPENAI_ROUTE = re.compile(r"/(embeddings|(chat/)?completions)$")
_OLLAMA_ROUTE = re.compile(
    r"/(api(/(embed|embeddings|chat|generate|tags|version|show|ps))?|v1(/(embeddings|(chat/)?completions|models))?)$"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseUrl:
    """Where the routes of a server begin.

    Attributes:
        root: URL without query and without a slash at its end.
        query: Query of every call, such as `api-version=2024-10-21`; empty for none.
    """

    root: str
    query: str = ""

    def route(self, path: str) -> str:
        """Return the URL of a route, such as `/embeddings`."""
        return f"{self.root}{path}?{self.query}" if self.query else f"{self.root}{path}"


@functools.lru_cache(maxsize=256)
def openai_base(url: str) -> BaseUrl:
    """Return the base of a server of OpenAI's protocol.

    A path is taken as given; only a bare host gets `/v1`. A route given in full (`…/embeddings`,
    `…/chat/completions`) names its base.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return _base(parts, _OPENAI_ROUTE.sub("", path).rstrip("/") if path else "/v1")


@functools.lru_cache(maxsize=256)
def ollama_base(url: str) -> BaseUrl:
    """Return the base of an Ollama, above `/api`; a route, `/api` or `/v1` at the end of the URL names it, too."""
    parts = urlsplit(url)
    return _base(parts, _OLLAMA_ROUTE.sub("", parts.path.rstrip("/")).rstrip("/"))


BASES = {"openai": openai_base, "ollama": ollama_base}
"""Base of a URL, by the protocol's name in settings."""


def _base(parts: SplitResult, path: str) -> BaseUrl:
    return BaseUrl(root=f"{parts.scheme}://{parts.netloc}{path}", query=parts.query)


def http_url(text: str) -> str:
    """Return the URL of a web server as it is called: in ASCII, scheme and host in lower case, no slash at its end.

    Raises:
        ValueError: It is not usable. The message says why and does not repeat the URL, which may hold a password.
    """
    text = text.strip()
    scheme, separator, _ = text.partition("://")
    if not separator:
        raise ValueError(f"has no scheme: write http:// or https:// before the host, such as {_EXAMPLE}")
    if scheme.lower() not in SCHEMES:
        raise ValueError(f"must start with http:// or https://, such as {_EXAMPLE}")
    if _BLANK.search(text):
        raise ValueError("has a space or a control character; write it as % and two digits")
    parts = _split(text)
    if parts.fragment or text.endswith("#"):
        raise ValueError("has a fragment (#), which no server sees; write the # of a password as %23")
    user, at, _ = parts.netloc.rpartition("@")
    user = quote(user, safe=_KEPT.replace("@", ""))
    port = "" if parts.port is None else f":{parts.port}"
    path, query = (quote(part, safe=_KEPT) for part in (parts.path.rstrip("/"), parts.query))
    return parts._replace(netloc=f"{user}{at}{_host(parts)}{port}", path=path, query=query).geturl()


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(
            "has a host or port that cannot be read; in a password, write the characters / ? # [ ] as % and digits"
        ) from None
    if port == 0:
        raise ValueError("has port 0, which no server has")
    return parts


def _host(parts: SplitResult) -> str:
    """Return the host, as a URL has it.

    Raises:
        ValueError: There is none, or it cannot exist.
    """
    host = parts.hostname or ""
    try:
        if ":" in host:
            return f"[{ipaddress.IPv6Address(host)}]"
        name = host if host.isascii() else Url(f"http://{host}").host or ""
    except ValueError:
        name = ""
    if not _HOST_NAME.fullmatch(name):
        raise ValueError(f"names no host, or one that cannot exist; a usable URL looks like {_EXAMPLE}")
    return name
