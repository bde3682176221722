"""The least that the API's server can do: one route that reads the request and returns a fixed body.

Run under gunicorn with the API's own worker class; BARE_BODY names the file with the body.
"""

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

BODY = Path(os.environ["BARE_BODY"]).read_bytes()


async def answer(request: Request) -> Response:
    """The body."""
    await request.body()
    return Response(BODY, media_type="application/json")


app = Starlette(routes=[Route("/v1/embeddings", answer, methods=["POST"])])
