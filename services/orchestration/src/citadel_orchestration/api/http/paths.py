"""Spellings of a request's path and method: base path, slashes, routes without `/v1`, and HEAD as GET without a body.

A redirect would drop the body of a POST in many clients, so other spellings are served in place.
"""

import re
from typing import Any

HEAD_KEY = "citadel.head"
"""Key of the ASGI scope that is set for HEAD."""
_SLASHES = re.compile(r"/{2,}")
_WITHOUT_VERSION = re.compile(r"^/(?:embeddings|models)(?:/|$)")
"""OpenAI's routes as clients ask for them whose base URL lacks `/v1`."""


class Paths:
    """Gives each request the path by which its route is registered.

    Args:
        base: Path before all routes, behind a proxy; empty for none. The proxy may strip it.
    """

    def __init__(self, base: str) -> None:
        self.base = base

    def normalised(self, scope: Any) -> Any:
        """Return the ASGI scope with the route's own path, and GET for HEAD; the same scope if nothing changes."""
        path, method = self._path(scope["path"]), scope["method"]
        if path == scope["path"] and method != "HEAD":
            return scope
        return scope | {"path": path, "method": "GET", HEAD_KEY: True} if method == "HEAD" else scope | {"path": path}

    def _path(self, path: str) -> str:
        if "//" in path:
            path = _SLASHES.sub("/", path)
        if self.base and (path == self.base or path.startswith(f"{self.base}/")):
            path = path[len(self.base) :]
        path = path.rstrip("/") or "/"
        return f"/v1{path}" if _WITHOUT_VERSION.match(path) else path
