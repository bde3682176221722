"""Routing: routes that FastAPI documents and does not touch, a fast path to them, and the services they use."""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Match

from citadel_orchestration.api.http.paths import HEAD_KEY

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]
S = TypeVar("S")


class RawRoute(APIRoute):
    """Route whose endpoint is `(request) -> Response`: no dependency solving, no serialisation.

    HEAD reaches it as GET. Its response to HEAD is made, but a stream is not begun; the server sends no body.
    """

    def get_route_handler(self) -> Endpoint:
        """Return the endpoint, which for HEAD answers with headers alone instead of a stream."""
        endpoint: Endpoint = self.endpoint
        if "GET" not in (self.methods or ()):
            return endpoint

        async def respond(request: Request) -> Response:
            response = await endpoint(request)
            if HEAD_KEY in request.scope and isinstance(response, StreamingResponse):
                return Response(None, response.status_code, response.headers)
            return response

        return respond


class FastPath:
    """ASGI application that calls some endpoints by exact method and path, and leaves the rest to FastAPI.

    The routes stay registered with FastAPI, which documents them and answers other methods and spellings. Errors
    rise to the middleware, which answers them as FastAPI's exception handlers do.

    Args:
        app: The FastAPI application.
        routes: The busiest routes; those with path parameters are left to FastAPI.
    """

    def __init__(self, app: FastAPI, routes: Iterable[RawRoute]) -> None:
        self._app = app
        fixed = [route for route in routes if not route.param_convertors]
        self._routes = {(method, route.path): route for route in fixed for method in route.methods or ()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI connection."""
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        # FastAPI sets the same two: `service_of` needs the application, metrics are labelled by the route.
        scope["app"], scope["route"] = self._app, route
        response = await route.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


def allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes with the request's path; `app.state.routes` lists the routes."""
    routes: list[APIRoute] = request.app.state.routes
    fitting = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    found = {method for route in fitting for method in route.methods or ()}
    return sorted(found | {"OPTIONS"} | ({"HEAD"} if "GET" in found else set()))


def service_of(request: Request, kind: type[S]) -> S:
    """Return the process's service of a class; `app.state.services` holds one of each."""
    service: S = request.scope["app"].state.services[kind]
    return service
