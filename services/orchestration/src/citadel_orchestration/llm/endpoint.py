"""One LLM endpoint: HTTP calls, bounded in number, time and size, and the span of each."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

import httpx
import orjson
from opentelemetry.trace import Span

from citadel_common.deadline import Deadline, cancelled_once
from citadel_common.errors import BadLlmOutput, CitadelError, InvalidInput, LlmRefused, LlmUnavailable, PayloadTooLarge
from citadel_common.outbound import Route, client_options, reason, route_to
from citadel_common.settings.llm import EndpointSettings
from citadel_common.telemetry import spans, tracing
from citadel_orchestration.llm.answers import Transcript, error_in, lines, refusal
from citadel_orchestration.llm.protocols import STYLES
from citadel_orchestration.llm.question import Answer, Piece, Question

_ERROR_BODY = 64 * 1024
_DRAIN = 0.1


def chat_span(question: Question, settings: EndpointSettings) -> AbstractContextManager[Span]:
    """Return the span of one call, which includes the wait for a free place; it follows the GenAI conventions."""
    if not tracing.is_on():
        return tracing.span(spans.CHAT)
    model, address = question.model or settings.model, urlsplit(settings.url)
    about = {
        spans.GEN_AI_OPERATION: "chat",
        spans.GEN_AI_PROVIDER: settings.style,
        spans.GEN_AI_MODEL: model,
        spans.SERVER_ADDRESS: address.hostname,
        spans.SERVER_PORT: address.port,
        spans.GEN_AI_INPUT: _input(question) if tracing.captures_content() else None,
    }
    return tracing.span(spans.CHAT, model, about)


def note_answer(span: Span, answer: Answer) -> None:
    """Add the attributes of the model's answer to the span."""
    if not span.is_recording():
        return
    span.set_attribute(spans.GEN_AI_ANSWERED_BY, answer.model)
    span.set_attribute(spans.GEN_AI_INPUT_TOKENS, answer.usage.prompt_tokens)
    span.set_attribute(spans.GEN_AI_OUTPUT_TOKENS, answer.usage.completion_tokens)
    span.set_attribute(spans.GEN_AI_FINISH, [answer.finish_reason])
    if tracing.captures_content():
        said = [{"role": "assistant", "parts": [{"type": "text", "content": answer.text}]}]
        span.set_attribute(spans.GEN_AI_OUTPUT, orjson.dumps(said).decode())


def _input(question: Question) -> str:
    asked = [
        {"role": message.role, "parts": [{"type": "text", "content": message.content}]} for message in question.messages
    ]
    return orjson.dumps(asked).decode()


class Endpoint:
    """Client of one endpoint; belongs to one event loop and connects at the first question.

    Args:
        name: Name in the settings.
        settings: Settings of this endpoint.
    """

    def __init__(self, name: str, settings: EndpointSettings) -> None:
        self._name = name
        self._settings = settings
        self._style = STYLES[settings.style]
        self._where = f"LLM endpoint {name!r}"
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._route = _route(self._style.url(settings.url), settings)
        self._http = _http_client(self._route, settings)

    async def ask(self, question: Question, deadline: Deadline) -> Answer:
        """Return the model's answer; see `LlmClients.ask`."""
        with chat_span(question, self._settings) as span:
            answer = await self._ask(question, deadline)
            note_answer(span, answer)
            return answer

    async def _ask(self, question: Question, deadline: Deadline) -> Answer:
        body = self._encode(question)
        async with self._slot(deadline):
            limit = deadline.timeout(self._settings.timeout)
            try:
                async with asyncio.timeout(limit):
                    return await cancelled_once(self._exchange(question, body))
            except CitadelError as error:
                error.args = (self._route.hidden(error.message),)
                raise
            except TimeoutError:
                raise LlmUnavailable(f"{self._where} did not finish within {limit:.3g} s") from None
            except httpx.HTTPError as error:
                raise self._failure(error) from None

    def _encode(self, question: Question) -> bytes:
        if question.characters > self._settings.max_prompt_chars:
            raise PayloadTooLarge(
                f"query: {question.characters} characters are more than the {self._settings.max_prompt_chars} "
                f"that {self._where} takes"
            )
        try:
            return orjson.dumps(self._style.body(question, self._settings))
        except TypeError as error:
            raise InvalidInput.at("query", f"it cannot be written as JSON: {error}") from None

    @contextlib.asynccontextmanager
    async def _slot(self, deadline: Deadline) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(deadline.timeout(math.inf)):
                await self._slots.acquire()
        except TimeoutError:
            raise LlmUnavailable(f"{self._where} was busy with {self._settings.max_concurrency} other calls") from None
        try:
            yield
        finally:
            self._slots.release()

    async def _exchange(self, question: Question, body: bytes) -> Answer:
        transcript = Transcript(self._settings.max_output_bytes)
        async with self._http.stream("POST", self._route.url, content=body, headers=tracing.carrier()) as response:
            if response.status_code != httpx.codes.OK:
                raise await self._refusal(response)
            kind = response.headers.get("content-type", "")
            if self._settings.stream and self._style.is_stream(kind):
                await self._read_stream(response, transcript)
            else:
                transcript.add(self._piece(await self._read_whole(response)))
        return Answer(
            text=transcript.text,
            endpoint=self._name,
            model=transcript.model or question.model or self._settings.model,
            usage=transcript.usage,
            finish_reason=transcript.finish_reason or "stop",
        )

    async def _read_stream(self, response: httpx.Response, transcript: Transcript) -> None:
        async with contextlib.aclosing(lines(response, transcript.raw_limit)) as stream:
            async for line in stream:
                payload = self._style.payload(line)
                if payload is None:
                    continue
                if self._style.is_end(payload) or transcript.add(self._piece(payload)):
                    await _drain(stream)
                    return
        if transcript.finish_reason is None:
            raise LlmUnavailable(f"{self._where} cut its answer off")

    async def _read_whole(self, response: httpx.Response) -> bytes:
        limit = Transcript(self._settings.max_output_bytes).raw_limit
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > limit:
                raise BadLlmOutput(f"{self._where} answered with more than {limit} bytes")
        return bytes(body)

    def _piece(self, payload: bytes) -> Piece:
        try:
            content = orjson.loads(payload)
        except orjson.JSONDecodeError:
            content = None
        if not isinstance(content, dict):
            raise BadLlmOutput(f"{self._where} answered with something that is not a JSON object")
        error = error_in(content)
        if error is not None:
            raise LlmUnavailable(f"{self._where} failed while it answered: {error[0]}")
        return self._style.piece(content)

    async def _refusal(self, response: httpx.Response) -> LlmUnavailable | LlmRefused:
        body = bytearray()
        with contextlib.suppress(httpx.HTTPError):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _ERROR_BODY:
                    break
        return refusal(self._where, response.status_code, bytes(body), response.headers.get("retry-after"))

    def _failure(self, error: httpx.HTTPError) -> LlmUnavailable:
        if isinstance(error, httpx.ReadTimeout):
            return LlmUnavailable(f"{self._where} was silent for {self._settings.idle_timeout:.3g} s")
        cause = self._route.hidden(reason(error))
        where = self._where + self._route.by
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return LlmUnavailable(f"{where} does not answer: {cause}")
        return LlmUnavailable(f"{where} hung up: {cause}")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


async def _drain(stream: AsyncIterator[bytes]) -> None:
    """Read what follows the last piece, so that the connection can be used again."""
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_DRAIN):
            async for line in stream:
                if line.strip():
                    return


def _route(url: str, settings: EndpointSettings) -> Route:
    key = settings.api_key
    return route_to(url, settings, key=("authorization", f"Bearer {key.get_secret_value()}") if key else None)


def _http_client(route: Route, settings: EndpointSettings) -> httpx.AsyncClient:
    silence = settings.idle_timeout if settings.stream else None  # the call's own timeout bounds it
    headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "citadel"}
    return httpx.AsyncClient(
        headers=headers | route.headers,
        timeout=httpx.Timeout(silence, connect=settings.connect_timeout),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=settings.max_concurrency),
        **client_options(route, settings),
    )
