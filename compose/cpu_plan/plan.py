"""The budget, scaled to a number of cores.

A group's part of the 16 cores is the same part of any other number, widened to whole cores. On fewer than 16, groups
come to share cores; limits do not shrink with the host, but only to what the group's cores can give, because a core
that nobody else wants should not lie idle: who gets how much of a wanted one is the kernel's to say. On more than 16,
the limits of what can use more grow with the host.
"""

from dataclasses import dataclass

from compose.cpu_plan.budget import CONTAINERS, CORES, GROUPS, Container, Group

MOST_BATCH = 4
"""A worker's tasks, divided by this, may be of the batch lane."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one container of a service gets.

    Attributes:
        container: Its row of the budget.
        cores: Processors it may run on, by number.
        limit: Processors it may use at once; at most as many as `cores`.
        concurrency: What is derived from the limit, at least 1; 0 where nothing is.
    """

    container: Container
    cores: tuple[int, ...]
    limit: float
    concurrency: int

    @property
    def cpuset(self) -> str:
        """The cores as the kernel writes them, such as `8-9,12-15`."""
        return as_cpuset(self.cores)


def plan(cores: int) -> list[Share]:
    """The share of each container, in the budget's order.

    Args:
        cores: Of the host, numbered from 0; at least 1.

    Raises:
        ValueError: There are none.
    """
    if cores < 1:
        raise ValueError("a host has one core at least")
    of_group = {group.name: cores_of(group, cores) for group in GROUPS}
    return [_share(container, of_group[container.group], cores) for container in CONTAINERS]


def cores_of(group: Group, cores: int) -> tuple[int, ...]:
    """The group's processors on a host of that many, in order."""
    found: set[int] = set()
    for first, end in group.spans:
        # whole numbers only: no core may be won or lost by rounding
        found.update(range(first * cores // CORES, -(-end * cores // CORES)))
    return tuple(sorted(found))


def _share(container: Container, own: tuple[int, ...], cores: int) -> Share:
    wanted = container.limit * max(1.0, cores / CORES) if container.grows else container.limit
    limit = round(min(wanted, float(len(own))), 2)
    derived = max(1, int(limit * container.per_core)) if container.concurrency else 0
    return Share(container=container, cores=own, limit=limit, concurrency=derived)


def as_cpuset(cores: tuple[int, ...]) -> str:
    """Ascending numbers as ranges."""
    ranges: list[list[int]] = []
    for core in cores:
        if ranges and core == ranges[-1][1] + 1:
            ranges[-1][1] = core
        else:
            ranges.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def variables(shares: list[Share]) -> dict[str, str]:
    """What the compose files are told, by variable."""
    found: dict[str, str] = {}
    for share in shares:
        container = share.container
        found[f"CITADEL_CPUSET_{_upper(container.group)}"] = share.cpuset
        found[f"CITADEL_CPUS_{_upper(container.service)}"] = f"{share.limit:g}"
        if container.concurrency:
            found[container.concurrency] = str(share.concurrency)
        if container.concurrency.startswith("CITADEL_TASKS_"):
            batch = max(1, share.concurrency // MOST_BATCH)
            found[container.concurrency.replace("TASKS", "BATCH_TASKS")] = str(batch)
    return dict(sorted(found.items()))


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")
