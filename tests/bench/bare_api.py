"""The bare endpoint: one route under gunicorn that reads the request and returns a fixed body.

The server is the API's (uvicorn on uvloop and httptools, with the same options) without Citadel's parts. BARE_BODY
names the file with the body.
"""

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]  # publishes no types

from citadel_orchestration.api.http.worker import ApiWorker

BODY = Path(os.environ["BARE_BODY"]).read_bytes()


class BareWorker(UvicornWorker):  # type: ignore[misc]
    """Gunicorn worker with the options of the API's, without its limits of connections."""

    CONFIG_KWARGS = ApiWorker.CONFIG_KWARGS | {"http": "httptools"}


async def answer(request: Request) -> Response:
    """Read the request and return the body."""
    await request.body()
    return Response(BODY, media_type="application/json")


app = Starlette(routes=[Route("/v1/embeddings", answer, methods=["POST"])])
