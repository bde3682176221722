"""Spellings of a request's path and method: base path, slashes, routes without `/v1`, Azure's, and HEAD as GET.

A redirect would drop the body of a POST in many clients, so other spellings are served in place.
"""

import re
from typing import Any

HEAD_KEY = "citadel.head"
"""Key of the ASGI scope that is set for HEAD."""
DEPLOYMENT_KEY = "citadel.deployment"
"""Key of the ASGI scope for the deployment that a path of Azure's form names, which is the model here."""
_SLASHES = re.compile(r"/{2,}")
_WITHOUT_VERSION = re.compile(r"^/(?:embeddings|models)(?:/|$)")
"""OpenAI's routes as clients ask for them whose base URL lacks `/v1`."""
_AZURE = re.compile(r"^/openai(?:/deployments/(?P<deployment>.+?))?(?:/v1)?(?P<route>/(?:embeddings|models)(?:/.*)?)$")
"""Paths of Azure OpenAI's form; source: its REST reference, `2024-10-21` and `v1`."""


class Paths:
    """Gives each request the path by which its route is registered.

    Args:
        base: Path before all routes, behind a proxy; empty for none. The proxy may strip it.
    """

    def __init__(self, base: str) -> None:
        self.base = base

    def normalised(self, scope: Any) -> Any:
        """Return the ASGI scope with the route's own path, and GET for HEAD; the same scope if nothing changes."""
        path, changes = self._path(scope["path"]), {}
        if path.startswith("/openai/") and (azure := _AZURE.match(path)):
            path, changes[DEPLOYMENT_KEY] = f"/v1{azure['route']}", azure["deployment"]
        if path != scope["path"]:
            changes["path"] = path
        if scope["method"] == "HEAD":
            changes |= {"method": "GET", HEAD_KEY: True}
        return scope | changes if changes else scope

    def _path(self, path: str) -> str:
        if "//" in path:
            path = _SLASHES.sub("/", path)
        if self.base and (path == self.base or path.startswith(f"{self.base}/")):
            path = path[len(self.base) :]
        path = path.rstrip("/") or "/"
        return path if path.startswith("/v1/") or not _WITHOUT_VERSION.match(path) else f"/v1{path}"
