"""The decision about a list: whose it is, which of the client's settings differs, and where its messages belong.

A list is taken for one of ours by its name and its messages together. A message must name a task of Citadel, and say
that it was sent to a queue of Citadel. Its messages are moved if the list's name is that queue, a separator and a
number: no program but a Celery client of this queue has such a list. Otherwise an operator is told, and the list is
left alone: it may be read by workers of somebody else who has a task of that name too.
"""

import difflib
import re
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass

from citadel_common.delivery.misrouted import Reason
from citadel_common.delivery.queues import STEPS, lists_of
from citadel_common.text import printable
from citadel_contracts import Queue
from citadel_maintenance.rerouting.addresses import Address

LANES = {key: queue for queue in Queue for key in lists_of(queue)}
"""The lists that workers read."""
BINDINGS = "_kombu.binding."
"""Prefix of the sets in which kombu keeps the bindings of an exchange."""
_OWN = "citadel:"
"""Prefix of Citadel's other keys, some of which hold messages on their way."""
_SEPARATOR = "\x06\x16"
_NAMES = "|".join(queue.value for queue in Queue)
_WITH_STEP = re.compile(rf"({_NAMES})(.{{0,16}}?)(-?[0-9]{{1,6}})", re.DOTALL)
_WITH_PREFIX = re.compile(rf"(.+?)({_NAMES})(?:[^A-Za-z0-9]{{1,16}}?-?[0-9]{{1,6}})?", re.DOTALL)
_SHOWN = 120
Bindings = Callable[[str], set[bytes]]
"""Returns the bindings of an exchange, as kombu stores them."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The decision about a list.

    Attributes:
        queue: The queue that its messages are meant for.
        reason: The client's setting that differs.
        help: What is wrong, and what to do.
        is_ours: Whether its messages may be moved.
    """

    queue: Queue
    reason: Reason
    help: str
    is_ours: bool = False


def lane_of(queue: Queue, priority: int) -> str:
    """Return the list in which workers look for messages of that priority."""
    return lists_of(queue)[bisect(STEPS, priority) - 1]


def finding_of(key: str, address: Address, bindings: Bindings) -> Finding | None:
    """Return the decision about a list that holds a message of that address; None for Citadel's own lists."""
    if key in LANES or key.startswith(_OWN):
        return None
    return _of_other_steps(key, address, bindings) or _of_a_prefix(key, address) or _of_another_queue(key, address)


def _of_other_steps(key: str, address: Address, bindings: Bindings) -> Finding | None:
    match = _WITH_STEP.fullmatch(key)
    if match is None:
        return None
    queue, separator, step = match.groups()
    if not (_is_sent_to(queue, address) or _is_bound(queue, separator, key, address, bindings)):
        return None
    if separator == _SEPARATOR:
        return Finding(queue=Queue(queue), reason="priority_steps", help=_STEPS_HELP.format(step=step), is_ours=True)
    shown = printable(separator, _SHOWN)
    return Finding(queue=Queue(queue), reason="separator", help=_SEPARATOR_HELP.format(sep=shown), is_ours=True)


def _is_sent_to(queue: str, address: Address) -> bool:
    return not address.exchange and address.routing_key == queue


def _is_bound(queue: str, separator: str, key: str, address: Address, bindings: Bindings) -> bool:
    """Return whether the client's exchange leads to that queue, and not to one whose name ends in a number."""
    if not address.exchange or not separator:
        return False
    bound = bindings(address.exchange)
    is_own = any(member.endswith(key.encode()) for member in bound)
    is_ours = separator == _SEPARATOR or any(member.endswith(f"{separator}{queue}".encode()) for member in bound)
    return is_ours and not is_own


def _of_a_prefix(key: str, address: Address) -> Finding | None:
    match = _WITH_PREFIX.fullmatch(key)
    if match is None or address.exchange or match[2] != address.routing_key:
        return None
    help_ = _PREFIX_HELP.format(prefix=printable(match[1], _SHOWN))
    return Finding(queue=Queue(match[2]), reason="key_prefix", help=help_)


def _of_another_queue(key: str, address: Address) -> Finding:
    queue = address.spec.queue
    help_ = _QUEUE_HELP.format(task=address.spec.name, queue=queue.value, key=printable(key, _SHOWN))
    if not key.startswith(queue.value) and difflib.get_close_matches(key, [queue.value], cutoff=0.8):
        help_ = f"{help_} The name may be a typo."
    return Finding(queue=queue, reason="queue", help=help_)


def of_another_database(database: int, own: int, address: Address) -> Finding | None:
    """Return the decision about one of the workers' lists in another database."""
    named = {address.routing_key, address.spec.queue.value} if address.exchange else {address.routing_key}
    queues = [queue for queue in Queue if queue.value in named]
    if not queues:
        return None
    return Finding(queue=queues[0], reason="database", help=_DATABASE_HELP.format(database=database, own=own))


_STEPS_HELP = (
    "The client's broker_transport_options name priority_steps with {step}, and workers read those of kombu's default:"
    " remove priority_steps. Its messages are moved into the right lane at intervals."
)
_SEPARATOR_HELP = (
    "The client's broker_transport_options have sep={sep!r}, and workers read lists with kombu's default: remove sep."
    " Its messages are moved into the right lane at intervals."
)
_PREFIX_HELP = (
    "The client's broker_transport_options have global_keyprefix={prefix!r}, and workers read lists without a prefix:"
    " remove global_keyprefix. Nothing is moved: workers of somebody else may read this list."
)
_DATABASE_HELP = (
    "The client's broker_url names database {database}, and Citadel's names {own}: change it. Nothing is moved."
)
_QUEUE_HELP = (
    "{task} is read from the queue {queue!r}, and its client sent it to {key!r}: set queue={queue!r}, or"
    " task_routes. Nothing is moved: workers of somebody else may read this list."
)
