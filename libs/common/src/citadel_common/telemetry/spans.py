"""Declarations of all spans: name, kind and attributes, by OpenTelemetry's semantic conventions.

No attribute holds a text, a vector, a key of the cache, an SQL parameter or a secret. `citadel.*` names are ours;
all others are the conventions' own.
"""

from dataclasses import dataclass

from opentelemetry.trace import SpanKind

ERROR_TYPE = "error.type"
"""Attribute of every failed span: an error code of `citadel_common.errors`, or the name of an exception's class."""
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"

MESSAGING_SYSTEM = "messaging.system"
MESSAGING_DESTINATION = "messaging.destination.name"
MESSAGING_OPERATION = "messaging.operation.name"
MESSAGING_TYPE = "messaging.operation.type"
MESSAGING_ID = "messaging.message.id"

DB_SYSTEM = "db.system.name"
DB_OPERATION = "db.operation.name"
DB_NAMESPACE = "db.namespace"
DB_COLLECTION = "db.collection.name"

GEN_AI_OPERATION = "gen_ai.operation.name"
GEN_AI_PROVIDER = "gen_ai.provider.name"
GEN_AI_MODEL = "gen_ai.request.model"
GEN_AI_ANSWERED_BY = "gen_ai.response.model"
GEN_AI_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_FINISH = "gen_ai.response.finish_reasons"
GEN_AI_INPUT = "gen_ai.input.messages"
GEN_AI_OUTPUT = "gen_ai.output.messages"

TASK = "citadel.task.name"
OUTCOME = "citadel.task.outcome"
RUN_ID = "citadel.run.id"
RUN_KIND = "citadel.run.kind"
RUN_STATUS = "citadel.run.status"
WORKFLOW_ID = "citadel.workflow.id"
STEP_ID = "citadel.step.id"
STEP_TYPE = "citadel.step.type"
STEP_ITEM = "citadel.step.item"
STEP_ATTEMPT = "citadel.step.attempt"
STEP_STATUS = "citadel.step.status"
WAIT_FOR = "citadel.wait.for"
WAIT_SECONDS = "citadel.wait.seconds"
WAIT_OUTCOME = "citadel.wait.outcome"
TEXTS = "citadel.texts"
TOKENS = "citadel.tokens"
HITS = "citadel.cache.hits"


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanSpec:
    """One kind of span.

    Attributes:
        name: Its name, or the first word of a name that ends with a target.
        target: Meaning of the second word; empty if there is none.
        kind: OpenTelemetry's kind.
        help: What it covers.
        attributes: Names of the attributes it may have, `error.type` aside.
        nested: Whether it appears only below another span: calls to stores, which background work makes all the time.
    """

    name: str
    kind: SpanKind
    help: str
    target: str = ""
    attributes: tuple[str, ...] = ()
    nested: bool = False


_MESSAGING = (MESSAGING_SYSTEM, MESSAGING_DESTINATION, MESSAGING_OPERATION, MESSAGING_TYPE, MESSAGING_ID, TASK)
_PEER = (SERVER_ADDRESS, SERVER_PORT)

REQUEST = SpanSpec(
    name="",
    target="{http.request.method} {http.route}",
    kind=SpanKind.SERVER,
    help="A request to the API, until its answer is sent",
    attributes=(HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS, URL_PATH, URL_SCHEME),
)
SEND = SpanSpec(
    name="send",
    target="{messaging.destination.name}",
    kind=SpanKind.PRODUCER,
    help="The publishing of a message: a task to its queue, or vectors to the engine's list",
    attributes=_MESSAGING,
)
PROCESS = SpanSpec(
    name="process",
    target="{messaging.destination.name}",
    kind=SpanKind.CONSUMER,
    help="What a worker does with a message; below the span that sent it",
    attributes=(*_MESSAGING, OUTCOME),
)
RUN = SpanSpec(
    name="run",
    target="{citadel.run.kind}",
    kind=SpanKind.INTERNAL,
    help="A run from its acceptance to its end, by the database's times; the root of its steps",
    attributes=(RUN_ID, RUN_KIND, RUN_STATUS, WORKFLOW_ID),
)
STEP = SpanSpec(
    name="step",
    target="{citadel.step.type}",
    kind=SpanKind.INTERNAL,
    help="One attempt of a step, by the database's times; linked to the attempt before",
    attributes=(RUN_ID, STEP_ID, STEP_TYPE, STEP_ITEM, STEP_ATTEMPT, STEP_STATUS),
)
WAIT = SpanSpec(
    name="wait",
    target="{citadel.wait.for}",
    kind=SpanKind.INTERNAL,
    help="A wait of a step for its start, such as for a slot of an LLM endpoint; linked to the attempt that followed",
    attributes=(RUN_ID, STEP_ID, STEP_ITEM, STEP_ATTEMPT, WAIT_FOR, WAIT_SECONDS, WAIT_OUTCOME),
)
CHAT = SpanSpec(
    name="chat",
    target="{gen_ai.request.model}",
    kind=SpanKind.CLIENT,
    help="A question to an LLM; with its messages where OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT is true",
    attributes=(
        GEN_AI_OPERATION,
        GEN_AI_PROVIDER,
        GEN_AI_MODEL,
        GEN_AI_ANSWERED_BY,
        GEN_AI_INPUT_TOKENS,
        GEN_AI_OUTPUT_TOKENS,
        GEN_AI_FINISH,
        GEN_AI_INPUT,
        GEN_AI_OUTPUT,
        *_PEER,
    ),
)
EMBEDDINGS = SpanSpec(
    name="embeddings",
    target="{gen_ai.request.model}",
    kind=SpanKind.CLIENT,
    help="A call to an embedding backend; below the first request that has a text in it, linked with all others",
    attributes=(GEN_AI_OPERATION, GEN_AI_PROVIDER, GEN_AI_MODEL, TEXTS, TOKENS, *_PEER),
)
VECTOR_STORE = SpanSpec(
    name="",
    target="{db.operation.name} {db.collection.name}",
    kind=SpanKind.CLIENT,
    help="A call to Qdrant",
    attributes=(DB_SYSTEM, DB_OPERATION, DB_COLLECTION, *_PEER),
    nested=True,
)
TRANSACTION = SpanSpec(
    name="transaction",
    kind=SpanKind.CLIENT,
    help="A transaction in PostgreSQL, with the wait for a connection",
    attributes=(DB_SYSTEM, DB_OPERATION, DB_NAMESPACE, *_PEER),
    nested=True,
)
CACHE = SpanSpec(
    name="MGET",
    kind=SpanKind.CLIENT,
    help="A look into the embedding cache; those of several requests share a call",
    attributes=(DB_SYSTEM, DB_OPERATION, TEXTS, HITS),
    nested=True,
)

SPANS: tuple[SpanSpec, ...] = tuple(found for found in list(globals().values()) if isinstance(found, SpanSpec))
"""All spans."""
