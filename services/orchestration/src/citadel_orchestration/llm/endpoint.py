"""One LLM endpoint: a bounded number of calls at once, each over HTTP and bounded in time and size."""

import asyncio
import contextlib
import math
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import httpx
import orjson

from citadel_common.deadline import Deadline
from citadel_common.errors import BadLlmOutput, CitadelError, InvalidInput, LlmRefused, LlmUnavailable, PayloadTooLarge
from citadel_common.settings.llm import EndpointSettings
from citadel_common.telemetry import tracing
from citadel_orchestration.cancelling import cancelled_once
from citadel_orchestration.llm.chat_span import chat_span, note_answer
from citadel_orchestration.llm.ollama import OllamaStyle
from citadel_orchestration.llm.openai import OpenAIStyle
from citadel_orchestration.llm.question import Answer, Piece, Question
from citadel_orchestration.llm.refusals import error_in, refusal
from citadel_orchestration.llm.transcript import Transcript, lines

_ERROR_BODY = 64 * 1024
_DRAIN = 0.1


class ChatStyle(Protocol):
    """A protocol's form of requests and answers."""

    def url(self, base: str) -> str:
        """Where questions go."""

    def body(self, question: Question, settings: EndpointSettings) -> dict[str, Any]:
        """The request."""

    def is_stream(self, content_type: str) -> bool:
        """Whether an answer of that type, to a request for a stream, is one."""

    def payload(self, line: bytes) -> bytes | None:
        """The data of a line of a stream; None for a line without."""

    def is_end(self, payload: bytes) -> bool:
        """Whether a payload only says that the stream is over."""

    def piece(self, content: Mapping[str, Any]) -> Piece:
        """A part of a stream, or a whole answer."""


STYLES: dict[str, ChatStyle] = {"openai": OpenAIStyle(), "ollama": OllamaStyle()}


class Endpoint:
    """Belongs to one event loop; opens no connection before the first question.

    Args:
        name: As configured.
        settings: Of this endpoint.
    """

    def __init__(self, name: str, settings: EndpointSettings) -> None:
        self._name = name
        self._settings = settings
        self._style = STYLES[settings.style]
        self._where = f"LLM endpoint {name!r}"
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._http = _http_client(settings)

    async def ask(self, question: Question, deadline: Deadline) -> Answer:
        """The model's answer; see `LlmClients.ask`."""
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
                error.args = (self._without_key(error.message),)
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
        async with self._http.stream(
            "POST", self._style.url(self._settings.url), content=body, headers=tracing.carrier()
        ) as response:
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
            raise BadLlmOutput(f"{self._where} answered with something that is no JSON object")
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
        reason = self._without_key(str(error)) or type(error).__name__
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return LlmUnavailable(f"{self._where} does not answer: {reason}")
        return LlmUnavailable(f"{self._where} hung up: {reason}")

    def _without_key(self, text: str) -> str:
        """The text; servers have been seen to repeat the key they were given."""
        key = self._settings.api_key
        return text.replace(key.get_secret_value(), "***") if key else text

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()


async def _drain(stream: AsyncIterator[bytes]) -> None:
    """Reads the end after the last piece, so that the connection can be used again."""
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_DRAIN):
            async for line in stream:
                if line.strip():
                    return


def _http_client(settings: EndpointSettings) -> httpx.AsyncClient:
    """A client that neither the environment nor a redirect leads elsewhere."""
    silence = settings.idle_timeout if settings.stream else None  # the call's own timeout bounds it
    headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "citadel"}
    if settings.api_key is not None:
        headers["authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
    return httpx.AsyncClient(
        headers=headers,
        verify=ssl.create_default_context(cafile=str(settings.ca_file)) if settings.ca_file else True,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(silence, connect=settings.connect_timeout),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=settings.max_concurrency),
    )
