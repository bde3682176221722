"""Embeddings: OpenAI's route, and tasks."""

from fastapi import APIRouter
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

from citadel_common.embeddings.requests import (
    check_dimensions,
    check_not_empty,
    check_options,
    check_texts,
    find_model,
)
from citadel_common.errors import CitadelError, InvalidInput
from citadel_contracts import GENERATE_EMBEDDING
from citadel_contracts.api import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    EmbeddingTaskRequest,
    TaskAccepted,
)
from citadel_orchestration.api.http.bodies import documented, read_body
from citadel_orchestration.api.http.raw_route import RawRoute, services_of
from citadel_orchestration.api.services import Services
from citadel_orchestration.api.tasks.accepting import accepted

router = APIRouter(route_class=RawRoute, tags=["embeddings"])

_TOKENS = "token ids are not supported, send texts (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"


@router.post(
    "/v1/embeddings",
    responses={200: {"model": EmbeddingsResponse}},
    openapi_extra=documented(EmbeddingsRequest),
    summary="Embed texts",
)
async def create_embeddings(request: Request) -> Response:
    """OpenAI-compatible: the vectors of one text or a list, in order."""
    body = await read_body(request, EmbeddingsRequest, explain=_explain)
    content = await services_of(request).embedder.answer(body)
    return Response(content, media_type="application/json")


@router.post(
    "/v1/embeddings/tasks",
    status_code=202,
    responses={202: {"model": TaskAccepted}},
    openapi_extra=documented(EmbeddingTaskRequest),
    summary="Embed texts later",
)
async def create_embedding_task(request: Request) -> Response:
    """Accepts one text or a list; the result is at `/v1/tasks/{id}`."""
    body = await read_body(request, EmbeddingTaskRequest)
    services = services_of(request)
    model = _check_task(body, services)
    arguments = body.model_dump(exclude_defaults=True) | {"text": body.text, "model": model}
    return await accepted(services, GENERATE_EMBEDDING, arguments)


def _check_task(body: EmbeddingTaskRequest, services: Services) -> str:
    """The model's name, if the task can be run."""
    texts = check_texts(body.text, services.settings.limits)
    check_options(body.options)
    name = body.model or services.settings.default_model
    model = find_model(name, services.models.catalog)
    if model is not None:
        check_dimensions(body.dimensions, model)
        check_not_empty(body.text, texts, model)
    return name


def _explain(error: CitadelError, body: bytes) -> CitadelError:
    """Some OpenAI clients send token ids, which deserves a better answer than one about types."""
    content = from_json(body)
    return (
        InvalidInput.at("input", _TOKENS) if isinstance(content, dict) and _are_tokens(content.get("input")) else error
    )


def _are_tokens(texts: object) -> bool:
    """Whether this is a list of token ids, or a list of such lists."""
    if not isinstance(texts, list) or not texts:
        return False
    first = texts[0]
    return _are_tokens(first) if isinstance(first, list) else isinstance(first, int) and not isinstance(first, bool)
