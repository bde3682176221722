"""Who may do what: API keys with scopes, or loopback clients only when there are none."""

import functools
import hashlib
import hmac
from typing import Any
from urllib.parse import urlsplit

from citadel_orchestration.api.http.errors import Forbidden, Unauthorized
from citadel_orchestration.settings import ApiKey, Scope, is_loopback

OPEN_PATHS = frozenset({"/livez", "/readyz", "/docs", "/openapi.json"})
ADMIN_PATHS = ("/v1/dead-letters",)
"""Below these, arguments of other callers' tasks are shown: only the scope `admin` may."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_HOW = "set CITADEL_API__KEYS to serve others"


class Auth:
    """Checks each request.

    Args:
        keys: The API keys; with none, only clients on this machine are served.
    """

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self._keys = [(key, bytes.fromhex(key.hash)) for key in keys]

    def check(self, scope: Any) -> str:
        """The name under which the caller is counted.

        Raises:
            Unauthorized: No key, or an unknown one.
            Forbidden: The key lacks the scope, or the caller is not on this machine.
        """
        if scope["path"] in OPEN_PATHS:
            return ""
        if not self._keys:
            return _local_client(scope)
        key = self._presented_key(scope)
        needed = _needed(scope["path"], scope["method"])
        if needed not in key.scopes:
            raise Forbidden(f"the API key {key.name!r} lacks the scope {needed!r}")
        return key.name

    def _presented_key(self, scope: Any) -> ApiKey:
        kind, _, secret = _header(scope, b"authorization").partition(b" ")
        if kind.lower() != b"bearer" or not secret:
            raise Unauthorized
        digest = hashlib.sha256(secret.strip()).digest()
        # Every key is compared, so that the time taken tells nothing about which one came near.
        found = [key for key, known in self._keys if hmac.compare_digest(digest, known)]
        if not found:
            error = Unauthorized("the API key is not known")
            error.challenge += ', error="invalid_token"'
            raise error
        return found[0]


def _needed(path: str, method: str) -> Scope:
    if any(path == admin or path.startswith(f"{admin}/") for admin in ADMIN_PATHS):
        return "admin"
    return "read" if method in _READING else "submit"


def _local_client(scope: Any) -> str:
    """Refuses other machines, and pages of other origins in a browser on this one."""
    host = scope["client"][0] if scope.get("client") else "127.0.0.1"
    if not is_loopback(host):
        raise Forbidden(f"no API keys are configured, so only clients on this machine are served; {_HOW}")
    for name in (b"host", b"origin"):
        value = _header(scope, name).decode("latin-1")
        if value and not _names_this_machine(value):
            raise Forbidden(f"no API keys are configured, so the {name.decode()} must be a loopback one; {_HOW}")
    return host


@functools.lru_cache(maxsize=1024)
def _names_this_machine(value: str) -> bool:
    address = value if "://" in value else f"//{value}"
    try:
        return is_loopback(urlsplit(address).hostname or "")
    except ValueError:
        return False


def _header(scope: Any, wanted: bytes) -> bytes:
    for name, value in scope["headers"]:
        if name == wanted:
            found: bytes = value
            return found
    return b""
