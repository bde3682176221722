"""Routes that FastAPI documents and does not touch: the endpoint takes the request and gives the response."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from citadel_orchestration.api.services import Services


class RawRoute(APIRoute):
    """A route without FastAPI's dependency solving and serialisation, for endpoints `(request) -> Response`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint itself."""
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


def services_of(request: Request) -> Services:
    """The process's parts."""
    services: Services = request.scope["app"].state.services
    return services
