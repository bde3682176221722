"""Settings of the orchestration service's processes."""

import functools
import ipaddress
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from citadel_common.settings.common import Fragment, available_cpus
from citadel_common.settings.llm import LlmSettings
from citadel_common.settings.postgres import StoredSettings
from citadel_common.settings.qdrant import QdrantSettings
from citadel_orchestration.definition.models import DefinitionLimits
from citadel_orchestration.definition.sizes import DEFAULT_RUN_LIMITS, RunLimits

Scope = Literal["read", "submit", "admin"]
UnknownFields = Literal["ignore", "refuse"]
Keyless = Literal["off", "loopback"]
_BASE_PATH = r"^(/[A-Za-z0-9._~-]+)*$"
_ROUTE = r"^[A-Z]+ /\S*$"
_ORIGIN = r"^(\*|[a-z][a-z0-9+.-]*://[^/?#@\s]+)$"


@functools.lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Return True if a host name or address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _as_network(text: str) -> str:
    """Return an address or network in its usual form; raise ValueError for anything else."""
    return str(ipaddress.ip_network(text)) if "/" in text else str(ipaddress.ip_address(text))


Network = Annotated[str, AfterValidator(_as_network)]


class ApiKey(Fragment):
    """One API key; the key itself is never stored."""

    name: str = Field(min_length=1, description="Shown in logs; each name has its own rate limit")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key in hex: printf %s KEY | sha256sum")
    scopes: frozenset[Scope] = Field(
        min_length=1, description="What it may do: read (GET), submit (POST), admin (operations)"
    )


class ApiFragment(Fragment):
    """The HTTP API."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; beyond loopback needs keys")
    port: int = Field(8080, ge=1, le=65535, description="Port to listen on")
    workers: int = Field(
        default_factory=lambda: min(2, available_cpus()), ge=1, description="Server processes; default: up to two"
    )
    keys: tuple[ApiKey, ...] = Field((), description="API keys; needed unless `KEYLESS` is `loopback`")
    keyless: Keyless = Field(
        "off", description="`loopback` serves clients on this machine without keys; never behind a proxy or tunnel"
    )
    trusted_proxies: tuple[Network, ...] = Field(
        ("127.0.0.1", "::1"), description="Addresses or networks of proxies whose `X-Forwarded-For` counts"
    )
    base_path: str = Field(
        "", pattern=_BASE_PATH, description="Path before all routes behind a proxy, such as `/citadel`; it may strip it"
    )
    cors_origins: tuple[Annotated[str, Field(pattern=_ORIGIN)], ...] = Field(
        (), description="Origins whose pages may call the API from a browser; `*` for all, which needs keys"
    )
    unknown_fields: UnknownFields = Field(
        "ignore", description="`/v1/embeddings`: ignore unknown fields and name them in a header, or `refuse` them"
    )
    max_body_bytes: int = Field(16 * 2**20, ge=1, description="Bytes in one request body")
    max_batch_bytes: int = Field(512 * 2**20, ge=1, description="Bytes in one batch that is streamed in as NDJSON")
    max_inline_bytes: int = Field(
        2**20,
        ge=1024,
        description="Bytes of an output or a final context that a run's view has; larger ones have links",
    )
    max_uploads: int = Field(4, ge=1, description="Batches being taken in at once, per process")
    max_headers: int = Field(100, ge=1, description="Header fields of one request")
    max_header_bytes: int = Field(32_768, ge=256, description="Bytes of one request line with its headers; of trailers")
    max_url_bytes: int = Field(8192, ge=64, description="Bytes of one request's path and query")
    header_timeout: float = Field(10.0, gt=0, description="Seconds until the headers of a request are complete")
    body_timeout: float = Field(900.0, gt=0, description="Seconds that the server may wait for one body in all")
    upload_timeout: float = Field(30.0, gt=0, description="Seconds a body may bring nothing")
    min_rate: int = Field(500, ge=1, description="Bytes per second at which bodies must come and responses be read")
    rate_grace: float = Field(10.0, gt=0, description="Seconds of a body before `MIN_RATE` counts")
    write_timeout: float = Field(30.0, gt=0, description="Seconds over which the rate of a client that reads counts")
    max_connections: int = Field(1000, ge=1, description="Open connections, per process")
    max_client_connections: int = Field(
        256, ge=1, description="Open connections of one address, per process; those of trusted proxies do not count"
    )
    max_body_memory: int = Field(
        192 * 2**20,
        ge=2**20,
        description="Most memory for bodies in flight with their parsed values, per process; at most 3/8 of its part of"
        " the container's limit",
    )
    max_followers: int = Field(500, ge=1, description="Streams of events and results at once, per process")
    max_caller_followers: int = Field(100, ge=1, description="Such streams of one key (or client), per process")
    request_timeout: float = Field(60.0, gt=0, description="Seconds a synchronous request may wait for its result")
    max_waiting: int = Field(512, ge=1, description="Synchronous requests waiting for results, per process")
    max_backlog: int = Field(10_000, ge=1, description="Ready messages per queue beyond which requests are refused")
    rate_per_minute: int | None = Field(None, ge=1, description="Requests per key (or client) and minute; none: off")
    trace_ratios: dict[Annotated[str, Field(pattern=_ROUTE)], Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict,
        description='Share of requests that begin a trace, by route: {"GET /v1/health": 0.1}; see telemetry.md',
    )
    hot_cache_bytes: int = Field(64 * 2**20, ge=0, description="Memory per process for vectors in use; 0: off")
    hot_cache_ttl: float = Field(60.0, gt=0, description="Seconds a vector is kept there before Redis is asked again")
    keep_alive: int = Field(75, ge=0, description="Seconds an idle connection is kept open")
    graceful_timeout: int = Field(65, ge=1, description="Seconds requests in flight get at SIGTERM")

    @model_validator(mode="after")
    def _base_path_is_not_v1(self) -> "ApiFragment":
        if self.base_path == "/v1":
            raise ValueError("base_path comes before the /v1 of the routes: leave it empty, or name another path")
        return self

    @model_validator(mode="after")
    def _keys_for_any_origin(self) -> "ApiFragment":
        if not self.keys and "*" in self.cors_origins:
            raise ValueError("without API keys any page could call the API: list the origins, or set CITADEL_API__KEYS")
        return self

    @model_validator(mode="after")
    def _keys_beyond_loopback(self) -> "ApiFragment":
        if not self.keys and not is_loopback(self.host):
            raise ValueError(
                f"with no API keys only loopback is served: set CITADEL_API__KEYS, or a loopback host, not {self.host}"
            )
        return self


class WorkflowSettings(Fragment):
    """The workflow engine."""

    lease: float = Field(10.0, gt=0.2, description="Seconds a step's lease lasts without renewal; then others take it")
    sweep_interval: float = Field(0.5, gt=0, description="Seconds between looks for what was left lying")
    max_in_flight: int = Field(1000, ge=1, description="Steps a worker executes at once")
    max_output_bytes: int = Field(16 * 2**20, ge=1024, description="Bytes in the output of one step")
    max_run_output_bytes: int = Field(16 * 2**20, ge=1024, description="Bytes in the output of a run")
    max_final_context_bytes: int = Field(
        16 * 2**20, ge=1024, description="Bytes in a run's final context, which sub-runs and Celery results have"
    )
    max_context_bytes: int = Field(16 * 2**20, ge=1024, description="Bytes in the context a run is started with")
    max_scope_bytes: int = Field(32 * 2**20, ge=1024, description="Bytes that the expressions of one step read")
    max_items_bytes: int = Field(16 * 2**20, ge=1024, description="Bytes in the items of one for_each")
    max_parameters_bytes: int = Field(32 * 2**20, ge=1024, description="Bytes in the parameters of one step")
    max_message_bytes: int = Field(16 * 2**20, ge=1024, description="Bytes of texts one step sends to be embedded")
    memory: int = Field(
        160 * 2**20, ge=16 * 2**20, description="Bytes of memory that values may take at once in a process; more wait"
    )
    scope_cache_bytes: int = Field(
        32 * 2**20, ge=0, description="Bytes of memory per worker for what the items of a for_each read together"
    )
    max_steps: int = Field(1000, ge=1, description="Steps in one definition")
    max_definition_bytes: int = Field(2**20, ge=1024, description="Bytes in one definition")
    max_items: int = Field(10_000, ge=1, description="Literal items in one for_each")
    max_parallel: int = Field(256, ge=1, description="Items of one for_each at once")
    batch_chunk: int = Field(64, ge=1, description="Requests in one chunk of a batch")
    batch_parallel: int = Field(16, ge=1, description="Chunks of one batch at once")
    max_batch_requests: int = Field(50_000, ge=1, description="Requests in one batch")
    max_backlog: int = Field(
        10_000, ge=1, description="Steps that wait for a worker or a slot, beyond which runs are refused"
    )
    max_backlog_per_caller: int | None = Field(
        None, ge=1, description="Those of one API key (or client) beyond which its runs are refused; none: no limit"
    )
    max_runs_per_key: int = Field(
        100_000, ge=1, description="Runs of one concurrency key that have not ended, beyond which more are refused"
    )
    max_events: int = Field(
        100_000, ge=100, description="Events of one run; after them, only those of the run as a whole are recorded"
    )

    @property
    def definition_limits(self) -> DefinitionLimits:
        """The limits of definitions."""
        return DefinitionLimits(
            max_steps=self.max_steps,
            max_definition_bytes=self.max_definition_bytes,
            max_context_bytes=self.max_context_bytes,
            max_items=self.max_items,
            max_parallel=self.max_parallel,
        )

    @property
    def run_limits(self) -> RunLimits:
        """The limits of what runs make and read."""
        limits = vars(DEFAULT_RUN_LIMITS)
        fields = {name: limit.setting.partition(".")[2] for name, limit in limits.items()}
        return RunLimits(**{name: replace(limits[name], bytes=getattr(self, fields[name])) for name in limits})


class EngineSettings(StoredSettings):
    """Settings that the API and the worker share."""

    workflows: WorkflowSettings = WorkflowSettings()
    llm: LlmSettings = LlmSettings()
    qdrant: QdrantSettings = QdrantSettings()


class OrchestrationSettings(EngineSettings):
    """Settings of the orchestration worker."""


class ApiSettings(EngineSettings):
    """Settings of the API."""

    api: ApiFragment = ApiFragment()

    @model_validator(mode="after")
    def _keys_or_keyless(self) -> "ApiSettings":
        if not self.api.keys and self.api.keyless == "off":
            raise ValueError(
                "there are no API keys: set CITADEL_API__KEYS, or CITADEL_API__KEYLESS=loopback to serve clients on "
                "this machine without keys (not behind a proxy or tunnel, whose clients would pass as local)"
            )
        return self

    @property
    def postgres_connections(self) -> int:
        """Return the most connections of all server processes: pool, watch and notifications of each."""
        return self.api.workers * (self.postgres.pool_size + 2)
