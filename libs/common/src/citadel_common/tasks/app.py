"""The factory of Celery apps: one configuration for every producer and worker."""

import numbers
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Exchange
from kombu import Queue as KombuQueue
from redis.backoff import NoBackoff
from redis.retry import Retry

from citadel_common.delivery import serializer, transport
from citadel_common.delivery.queues import SENT_AT_HEADER
from citadel_common.delivery.server_clock import ServerClock
from citadel_common.settings.common import CommonSettings, StoreSettings
from citadel_common.settings.redis_url import RedisAddress, redis_address
from citadel_common.stores.redis import connect, master_of, sentinel_arguments, timeouts
from citadel_common.tasks import result_backend
from citadel_common.telemetry import messages, tracing
from citadel_contracts import TASKS, AnyTaskSpec, Lane, Queue

HIDDEN = "..."
"""Text that Celery shows in place of arguments."""
REQUEST = "citadel_common.tasks.request:TimedRequest"
"""Class of the requests of all tasks."""
_PART_BY_PART = frozenset(spec.name for spec in TASKS if spec.part_by_part)


class StampedMessages(AMQP):  # type: ignore[misc]  # celery publishes no types
    """Celery's messages with sending time and trace context, without a readable copy of the arguments.

    The copy would put texts into headers, and it costs more than the message.
    """

    def as_task_v2(self, *args: Any, **options: Any) -> Any:
        """Return a message of Celery's protocol 2; a countdown and an expiry begin by the broker's clock."""
        if options.get("countdown") or isinstance(options.get("expires"), numbers.Real):
            options["now"] = datetime.fromtimestamp(clock_of(self.app).now(), UTC)
        return super().as_task_v2(*args, **options | {"argsrepr": HIDDEN, "kwargsrepr": HIDDEN})

    def _create_task_sender(self) -> Callable[..., Any]:
        send: Callable[..., Any] = super()._create_task_sender()

        def stamped(*args: Any, headers: dict[str, Any] | None = None, **options: Any) -> Any:
            """Add the headers: a retry carries those of the attempt before it, and the time comes last."""
            earlier = {name: value for name, value in (headers or {}).items() if name != SENT_AT_HEADER}
            sent_at = clock_of(self.app).now()
            with _sending(args, options) as carrier:
                return send(*args, headers=earlier | carrier | {SENT_AT_HEADER: sent_at}, **options)

        return stamped


def _sending(args: Any, options: dict[str, Any]) -> AbstractContextManager[tracing.Carrier]:
    """Open the span of one publish; `args` and `options` are those of Celery's sender."""
    _, name, message, *_ = args
    if not tracing.is_on() or name in _PART_BY_PART:
        return nullcontext({})
    queue = options.get("queue") or options.get("routing_key") or ""
    return messages.sending(getattr(queue, "name", queue), message_id=message.headers["id"], task=name)


def create_app(settings: CommonSettings, *, queue: Queue | None = None, **transport_options: Any) -> Celery:
    """Return a Celery app.

    Args:
        settings: Broker, results, timeouts.
        queue: The queue that a worker on this app serves; None for a producer.
        transport_options: More options of the broker's transport.
    """
    serializer.install()
    transport.install()
    app = Celery("citadel", amqp=StampedMessages, set_as_current=queue is not None)
    app.conf.update(
        _connections(settings, transport_options) | _messages(settings) | _execution(settings) | _workers(settings)
    )
    app.Task.Request = REQUEST
    app.server_clock = ServerClock(connect(settings.broker_url, settings.stores))
    if queue is not None:
        app.loader.override_backends = result_backend.OVERRIDES
    app.conf.task_queues = [_kombu_queue(name) for name in ([queue] if queue else Queue)]
    return app


def clock_of(app: Celery) -> ServerClock:
    """Return the clock of an app's broker."""
    clock: ServerClock = app.server_clock
    return clock


def _kombu_queue(name: Queue) -> KombuQueue:
    return KombuQueue(name.value, Exchange(name.value, type="direct"), routing_key=name.value)


def _connections(settings: CommonSettings, transport_options: dict[str, Any]) -> dict[str, Any]:
    stores = settings.stores
    broker, results = (redis_address(url.get_secret_value()) for url in (settings.broker_url, settings.results))
    limits = timeouts(results, stores)
    visibility = {"visibility_timeout": settings.worker.visibility_timeout}
    # Lanes are polled from the highest to the lowest; across queues, in the order of the contracts.
    broker_options = visibility | {"queue_order_strategy": "priority"} | transport_options
    return {
        "broker_url": broker.celery_url,
        "broker_use_ssl": broker.tls,
        "broker_transport_options": timeouts(broker, stores) | _sentinels(broker, stores) | broker_options,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": stores.connect_timeout,
        "result_backend": results.celery_url,
        "redis_backend_use_ssl": results.tls,
        "result_backend_transport_options": limits
        | _sentinels(results, stores)
        | visibility
        | {"retry_policy": {"timeout": stores.timeout}, "additional_connection_errors": result_backend.NOT_NOW},
        "redis_socket_timeout": limits["socket_timeout"],
        "redis_socket_connect_timeout": limits["socket_connect_timeout"],
        "redis_socket_keepalive": limits["socket_keepalive"] and not results.path,
        "redis_backend_health_check_interval": limits["health_check_interval"],
        "redis_client_name": limits.get("client_name"),
        "redis_retry_on_timeout": False,
    }


def _sentinels(address: RedisAddress, stores: StoreSettings) -> dict[str, Any]:
    if not address.is_sentinel:
        return {}
    limits = {name: value for name, value in timeouts(address, stores).items() if name.startswith("socket_")}
    # Without a retry of its own, redis-py tries a dead sentinel ten times before the next one.
    limits["retry"] = Retry(NoBackoff(), 1)
    return {
        "master_name": master_of(address, stores),
        "sentinel_kwargs": limits | sentinel_arguments(address, stores),
    }


def _messages(settings: CommonSettings) -> dict[str, Any]:
    return {
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_routes": _routes(TASKS),
        # Tasks that are not Citadel's: the callbacks of clients, which their own workers run.
        "task_default_queue": settings.worker.foreign_queue,
        "task_default_exchange_type": "direct",
        "task_default_priority": Lane.STANDARD.value,
        "task_create_missing_queues": True,
        # A publish that fails raises at once; callers with time left try again.
        "task_publish_retry": False,
        "timezone": "UTC",
        "enable_utc": True,
    }


def _routes(specs: Iterable[AnyTaskSpec]) -> dict[str, dict[str, Any]]:
    return {spec.name: {"queue": spec.queue.value, "priority": spec.lane.value} for spec in specs}


def _execution(settings: CommonSettings) -> dict[str, Any]:
    return {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": False,
        "task_track_started": False,
        "result_expires": settings.worker.result_ttl,
        # The parts of a chord may be runs that last for days.
        "result_chord_expires": settings.worker.chord_ttl,
        "result_extended": False,
        # Events cost half of the throughput; heartbeats and metrics carry the same for less.
        "worker_send_task_events": settings.worker.task_events,
        "task_send_sent_event": False,
    }


def _workers(settings: CommonSettings) -> dict[str, Any]:
    return {
        "worker_pool": "threads",
        "worker_concurrency": settings.worker.concurrency,
        # A command that Redis refuses (full, read-only) is answered by a new connection, not by the worker's end.
        "broker_channel_error_retry": True,
        "worker_prefetch_multiplier": settings.worker.prefetch,
        # Tasks that go on after a lost connection are counted by the transport.
        "worker_enable_prefetch_count_reduction": False,
        "worker_disable_rate_limits": True,
        # Celery's own would read commands on the consumer's event loop; `worker.remote_control` does so beside it.
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_log_color": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_consumer": "citadel_common.worker.consumer:GuardedConsumer",
    }
