"""Authentication and authorization: API keys with scopes; without keys, clients on this machine only."""

import functools
import hashlib
import hmac
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request

from citadel_orchestration.api.http.errors import Forbidden, Unauthorized
from citadel_orchestration.api.http.trace import header_of
from citadel_orchestration.settings import ApiKey, Scope, is_loopback

OPEN_PATHS = frozenset({"/livez", "/readyz", "/docs", "/openapi.json"})
ADMIN_PATHS = ("/v1/dead-letters",)
"""Paths that need the scope `admin`: they show arguments of other callers' tasks."""
CALLER_KEY = "citadel.caller"
"""Key of the caller's name in the ASGI scope."""
_READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_REMEDY = "set CITADEL_API__KEYS to serve others"
FORWARDED = frozenset(
    {
        *(b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"x-original-host"),
        *(b"cf-connecting-ip", b"cf-ray", b"true-client-ip", b"fastly-client-ip", b"fly-client-ip"),
        *(
            b"x-envoy-external-address",
            b"x-azure-clientip",
            b"x-appengine-user-ip",
            b"cdn-loop",
            b"x-original-forwarded-for",
        ),
    }
)
"""Headers that a proxy or tunnel adds, beside `X-Forwarded-*`: the request may come from anywhere."""


class Auth:
    """Checks the API key of each request.

    Args:
        keys: API keys; with none (`CITADEL_API__KEYLESS`), only clients on this machine are served.
        origins: Origins whose pages may call without a key too.
    """

    def __init__(self, keys: tuple[ApiKey, ...], origins: tuple[str, ...] = ()) -> None:
        self._origins = frozenset(origins)
        self._keys = [(key, bytes.fromhex(key.hash)) for key in keys]

    def check(self, scope: Any) -> str:
        """Return the name under which the caller's requests are counted.

        Raises:
            Unauthorized: There is no key, or it is unknown.
            Forbidden: The key lacks the scope, or the caller is not on this machine.
        """
        if scope["path"] in OPEN_PATHS:
            return ""
        if not self._keys:
            return _local_client(scope, self._origins)
        key = self._presented_key(scope)
        needed = _needed_scope(scope["path"], scope["method"])
        if needed not in key.scopes:
            raise Forbidden(f"the API key {key.name!r} lacks the scope {needed!r}")
        return key.name

    def _presented_key(self, scope: Any) -> ApiKey:
        secret = _presented_secret(scope)
        if not secret:
            raise Unauthorized
        digest = hashlib.sha256(secret).digest()
        # Compares all keys, so that the time does not depend on which key matches.
        found = [key for key, known in self._keys if hmac.compare_digest(digest, known)]
        if not found:
            error = Unauthorized("the API key is not known")
            error.challenge += ', error="invalid_token"'
            raise error
        return found[0]


def caller_of(request: Request) -> str:
    """Return the name under which the caller of a request is counted."""
    name: str = request.scope[CALLER_KEY]
    return name


def _presented_secret(scope: Any) -> bytes:
    """Return the bearer token, else the value of `api-key`, the header of Azure OpenAI's clients; empty for neither."""
    kind, _, token = header_of(scope, b"authorization").partition(b" ")
    secret = token.strip() if kind.lower() == b"bearer" else b""
    return secret or header_of(scope, b"api-key").strip()


def _needed_scope(path: str, method: str) -> Scope:
    if any(path == admin or path.startswith(f"{admin}/") for admin in ADMIN_PATHS):
        return "admin"
    return "read" if method in _READ_METHODS else "submit"


def _local_client(scope: Any, origins: frozenset[str]) -> str:
    """Return the client's address.

    Raises:
        Forbidden: The client is on another machine, or may be, behind a proxy on this one; or a browser on this one
            shows a page of another origin.
    """
    for name, _ in scope["headers"]:
        if name in FORWARDED or name.startswith(b"x-forwarded"):
            raise Forbidden(
                f"no API keys are configured, and the header {name.decode('latin-1')} shows that a proxy or tunnel "
                f"passed this request on, perhaps from another machine; {_REMEDY}"
            )
    host = scope["client"][0] if scope.get("client") else "127.0.0.1"
    if not is_loopback(host):
        raise Forbidden(f"no API keys are configured, so only clients on this machine are served; {_REMEDY}")
    for name in (b"host", b"origin"):
        value = header_of(scope, name).decode("latin-1")
        if value and not _is_on_this_machine(value) and not (name == b"origin" and value in origins):
            raise Forbidden(f"no API keys are configured, so the {name.decode()} must be a loopback one; {_REMEDY}")
    return host


@functools.lru_cache(maxsize=1024)
def _is_on_this_machine(value: str) -> bool:
    address = value if "://" in value else f"//{value}"
    try:
        return is_loopback(urlsplit(address).hostname or "")
    except ValueError:
        return False
