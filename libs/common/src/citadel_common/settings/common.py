"""Settings: frozen fragments read from `CITADEL_*` variables, built once at the entry point.

Nested fields are joined by `__` (`CITADEL_WORKER__CONCURRENCY`). Any variable may be given as a file whose
content is the value, by the suffix `_FILE` (`CITADEL_BROKER_URL_FILE=/run/secrets/broker`), or by a file of its name
in the directory of secrets (`/run/secrets/citadel_broker_url`).
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from citadel_common.settings.redis_url import redis_address
from citadel_common.settings.sources import PREFIX, FileEnvSource, with_password
from citadel_contracts.outbound import check_environment

EX_CONFIG = 78
BASE_URL = "Base URL, such as https://host/v1 or http://gpu1:11434; a bare host gets /v1, any path is taken as given"


class Fragment(BaseModel):
    """Base of settings fragments; a misspelt nested name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _redis_url(url: SecretStr) -> SecretStr:
    redis_address(url.get_secret_value())
    return url


RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
OptionalText = Annotated[str | None, BeforeValidator(lambda value: value or None)]
"""A text; an empty variable, which compose files make of one that is not set, is as good as none."""


class StoreSettings(Fragment):
    """How the Redis servers are reached."""

    timeout: float = Field(5.0, gt=0, description="Seconds a store call may take")
    connect_timeout: float = Field(2.0, gt=0, description="Seconds a connection may take to open")
    health_check_interval: float = Field(30.0, ge=1, description="Seconds of idleness before a ping")
    sentinel_master: OptionalText = Field(None, description="Master's name when a URL is `sentinel://`")
    sentinel_username: OptionalText = Field(None, description="User of the sentinels themselves")
    sentinel_password: SecretStr | None = Field(None, description="Password of the sentinels themselves")


class CacheSettings(Fragment):
    """The embedding cache."""

    ttl: int = Field(7 * 24 * 3600, ge=1, description="Seconds a vector is kept")
    precision: Literal["float32", "float16"] = Field(
        "float32", description="Stored form; float16 halves the size and costs 3e-8 in cosine"
    )
    timeout: float = Field(0.5, gt=0, description="Seconds a cache call may take before the texts are computed instead")
    claim_ttl: float = Field(
        30.0, gt=0, description="Seconds one process may hold the right to compute a text for the fleet"
    )


class LimitSettings(Fragment):
    """Limits on what one request may carry, checked before anything is enqueued and again by the worker."""

    max_texts: int = Field(2048, ge=1, description="Texts in one request or task")
    max_text_chars: int = Field(200_000, ge=1, description="Characters in one text")
    max_batch_requests: int = Field(10_000, ge=1, description="Requests in one batch task")


class RetrySettings(Fragment):
    """Retries of tasks that failed with an error that can pass: exponential, full jitter, capped."""

    max_retries: int = Field(5, ge=0, description="Retries before the task becomes a dead letter")
    base: float = Field(1.0, gt=0, description="Seconds; upper bound of the first delay")
    factor: float = Field(2.0, ge=1, description="Growth of the bound per retry")
    cap: float = Field(60.0, gt=0, description="Seconds; largest bound")


class RevokeSettings(Fragment):
    """Revokes of tasks by Celery clients."""

    ttl: int = Field(3 * 3600, ge=1, description="Seconds a revoke is remembered (Celery's REVOKE_EXPIRES)")
    most: int = Field(50_000, ge=1, description="Revokes remembered at most (Celery's REVOKES_MAX); the oldest go")


class WorkerSettings(Fragment):
    """One worker process."""

    concurrency: int = Field(32, ge=1, description="Tasks run at once (threads)")
    batch_concurrency: int = Field(8, ge=1, description="Most of them from the batch lane")
    prefetch: int = Field(1, ge=1, description="Messages taken per thread, the running one included")
    max_deliveries: int = Field(
        5,
        ge=2,
        description="Deliveries before a task that kills workers is dead-lettered; another task may be at fault",
    )
    heartbeat_interval: float = Field(5.0, gt=0, description="Seconds between heartbeats")
    dead_after: float = Field(30.0, gt=0, description="Seconds without a heartbeat until peers take a worker's tasks")
    stop_grace: float = Field(
        20.0, gt=0, description="Seconds running tasks get at SIGTERM before they are handed back"
    )
    health_file: Path | None = Field(None, description="File touched while the worker is healthy")
    visibility_timeout: int = Field(7200, ge=60, description="Seconds; must exceed every hard limit")
    result_ttl: int = Field(3600, ge=1, description="Seconds a task's result is kept")
    chord_ttl: int = Field(
        7 * 24 * 3600, ge=1, description="Seconds that a chord waits for its next part; the results so far are kept"
    )
    dead_letter_ttl: int = Field(14 * 24 * 3600, ge=1, description="Seconds a dead letter is kept")
    max_dead_letters: int = Field(10_000, ge=1, description="Dead letters kept; the oldest ones go")
    remote_control: bool = Field(True, description="Answer Celery's remote control: revoke, inspect; send heartbeats")
    task_events: bool = Field(False, description="Send Celery's task events, which cost a third of the throughput")
    revoke: RevokeSettings = RevokeSettings()
    foreign_queue: str = Field(
        "celery",
        min_length=1,
        description="Queue of callbacks that are not Citadel's tasks and name none; `celery` is Celery's default",
    )
    retry: RetrySettings = RetrySettings()


class AcceptedSettings(Fragment):
    """Accepted tasks, which are published again if their messages are not in the broker."""

    first_look: float = Field(
        30.0,
        gt=0,
        description="Seconds until the message of a task that nobody runs is looked for; doubled if it is missing",
    )
    longest_wait: float = Field(600.0, gt=0, description="Seconds between two looks at most")
    lease: float = Field(60.0, gt=0, description="Seconds a worker's lease lasts without renewal")


class LogSettings(Fragment):
    """Logs go to standard output."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level shown")
    format: Literal["json", "console", "auto"] = Field("auto", description="auto: console on a terminal, else json")


class TelemetrySettings(Fragment):
    """Metrics of the process; traces are set up by the standard `OTEL_*` variables."""

    metrics_port: int = Field(0, ge=0, le=65535, description="Port on which this process serves its metrics; 0: none")
    metrics_host: str = Field("127.0.0.1", min_length=1, description="Address of that port")


class CommonSettings(BaseSettings):
    """Settings of every process."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="ignore", validate_default=True
    )
    passwords: ClassVar[Mapping[str, str]] = {
        "broker_password": "broker_url",
        "result_password": "result_url",
        "cache_password": "cache_url",
    }
    """Fields that complete another one's URL."""

    broker_url: RedisUrl = Field(SecretStr("redis://127.0.0.1:6379/0"), description="Broker (Redis, noeviction)")
    broker_password: SecretStr | None = Field(None, description="Its password, where the URL has none")
    result_url: RedisUrl | None = Field(None, description="Results and task records; default: the broker's")
    result_password: SecretStr | None = Field(None, description="Its password, where the URL has none")
    cache_url: RedisUrl | None = Field(None, description="Embedding cache (Redis, allkeys-lfu); default: the broker's")
    cache_password: SecretStr | None = Field(None, description="Its password, where the URL has none")
    default_model: str = Field("nomic-embed-text", min_length=1, description="Model when a request names none")
    stores: StoreSettings = StoreSettings()
    cache: CacheSettings = CacheSettings()
    limits: LimitSettings = LimitSettings()
    worker: WorkerSettings = WorkerSettings()
    accepted: AcceptedSettings = AcceptedSettings()
    log: LogSettings = LogSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @property
    def results(self) -> SecretStr:
        """Return the URL of results and task records."""
        return self.result_url or self.broker_url

    @property
    def cache_store(self) -> SecretStr:
        """Return the URL of the embedding cache."""
        return self.cache_url or self.broker_url

    @model_validator(mode="before")
    @classmethod
    def _complete_urls(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Complete each URL with its password; a password for a store without a URL of its own is ignored."""
        complete = dict(given)
        for field, target in cls.passwords.items():
            password, url = _plain(given.get(field)), given.get(target, cls.model_fields[target].default)
            if password and url:
                complete[target] = SecretStr(with_password(_plain(url), password))
        return complete

    @model_validator(mode="after")
    def _visibility_exceeds_limits(self) -> "CommonSettings":
        from citadel_contracts import TASKS

        longest = max(spec.hard_limit for spec in TASKS) + self.worker.retry.cap
        if self.worker.visibility_timeout <= longest:
            raise ValueError(
                f"worker.visibility_timeout must exceed {longest:.0f} s, the longest hard limit and retry delay"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments first, then variables and files."""
        del env_settings, dotenv_settings, file_secret_settings
        return init_settings, FileEnvSource(settings_cls)


def _plain(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value or "")


S = TypeVar("S", bound=CommonSettings)


def load(settings: type[S]) -> S:
    """Return the process's settings; a wrong one ends the process with one line that names it."""
    try:
        check_environment(os.environ)
        return settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        problem = first["msg"].removeprefix("Value error, ")
        where = PREFIX + "__".join(str(part) for part in first["loc"]).upper()
        refuse(f"{where}: {problem}" if first["loc"] else problem)
    except (SettingsError, ValueError) as error:
        refuse(str(error))


class WrongSetting(Exception):
    """A setting with which the process cannot work, as a server's answer shows.

    Args:
        name: The variable.
        problem: What is wrong, and what to do; without secrets.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")


def refuse(line: str) -> NoReturn:
    """End the process because of a wrong setting, with one line that names it."""
    print(f"citadel: wrong setting: {line}", file=sys.stderr)  # noqa: T201  (logging is not set up yet)
    sys.exit(EX_CONFIG)


def available_cpus() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
