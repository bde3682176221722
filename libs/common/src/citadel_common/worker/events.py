"""Celery's events about a worker, by which Flower and `celery events` see it.

Only those about the worker itself: one small message a heartbeat. Events about tasks are Celery's own work, and off
unless `worker.task_events` asks for them.
"""

import base64
import os
import uuid
from typing import TYPE_CHECKING, Any

from celery.utils.time import utcoffset
from celery.worker import state as worker_state

from citadel_common.delivery import serializer
from citadel_common.settings.redis_url import redis_address
from citadel_common.tasks.app import clock_of
from citadel_common.tasks.runtime import TaskRuntime

if TYPE_CHECKING:
    from redis import Redis

EXCHANGE = "celeryev"


class WorkerEvents:
    """Publishes the events of one worker.

    Args:
        client: Of the broker's Redis.
        runtime: Of the worker.
    """

    def __init__(self, client: "Redis", runtime: TaskRuntime) -> None:
        self._client = client
        self._runtime = runtime
        database = redis_address(runtime.settings.broker_url.get_secret_value()).database
        self._topic = f"/{database}.{EXCHANGE}/worker."
        self._is_online = False

    def beat(self) -> None:
        """Say that the worker is there.

        Raises:
            redis.RedisError: The broker does not answer.
        """
        self._send("heartbeat" if self._is_online else "online")
        self._is_online = True

    def goodbye(self) -> None:
        """Say that the worker is going.

        Raises:
            redis.RedisError: The broker does not answer.
        """
        self._send("offline")
        self._is_online = False

    def _send(self, kind: str) -> None:
        routing_key = f"worker.{kind}"
        hostname = self._runtime.identity.id
        event = {
            "type": f"worker-{kind}",
            "hostname": hostname,
            "timestamp": clock_of(self._runtime.app).now(),
            "utcoffset": utcoffset(),
            "pid": os.getpid(),
            "clock": self._runtime.app.clock.forward(),
            "freq": self._runtime.settings.worker.heartbeat_interval,
            "active": len(self._runtime.running.tasks()),
            "processed": self._runtime.running.processed,
            "loadavg": os.getloadavg(),
            **worker_state.SOFTWARE_INFO,
        }
        message = kombu_message(event, {"hostname": hostname}, exchange=EXCHANGE, routing_key=routing_key)
        self._client.publish(self._topic + kind, message)


def kombu_message(body: Any, headers: dict[str, Any], *, exchange: str, routing_key: str) -> str:
    """Return a message as kombu's Redis transport writes it."""
    return serializer.dumps(
        {
            "body": base64.b64encode(serializer.dumps(body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": exchange, "routing_key": routing_key},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )
