"""A short way to the busiest routes, past the framework's routing and exit stacks.

The routes stay registered with FastAPI, which documents them and answers what does not match exactly. An error
rises to the gate, which answers it the same way.
"""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request

from citadel_orchestration.api.http.raw_route import RawRoute


class DirectRoutes:
    """ASGI: calls an endpoint by exact method and path, or hands on to the application.

    Args:
        app: The application.
        routes: Routes without path parameters.
    """

    def __init__(self, app: FastAPI, routes: Iterable[RawRoute]) -> None:
        self._app = app
        self._routes = {(method, route.path): route for route in routes for method in route.methods or ()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["app"], scope["route"] = self._app, route
        response = await route.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
