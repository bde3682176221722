"""The budget, scaled to a number of cores.

A group gets the same fraction of any number of cores as of 16, widened to whole cores. On fewer than 16 cores, groups
share cores. Limits do not shrink with the host, only to the number of the group's cores, so that no core is idle while
a container could use it; the kernel divides a core that several want. On more than 16 cores, the limits of containers
that can use more grow with the host.
"""

from dataclasses import dataclass

from compose.cpu_plan.budget import CONTAINERS, CORES, GROUPS, Container, Group

MOST_BATCH = 4
"""A worker's tasks divided by this is the number of its tasks in the batch lane."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """The share of one container of a service.

    Attributes:
        container: Its row of the budget.
        cores: Processors it may run on, by number.
        limit: Processors it may use at once; at most as many as `cores`.
        concurrency: Tasks, processes or threads derived from the limit, at least 1; 0 if none are derived.
    """

    container: Container
    cores: tuple[int, ...]
    limit: float
    concurrency: int

    @property
    def cpuset(self) -> str:
        """The cores in the kernel's notation, such as `8-9,12-15`."""
        return as_cpuset(self.cores)


def plan(cores: int) -> list[Share]:
    """Return the share of each container, in the budget's order.

    Args:
        cores: Number of the host's cores, at least 1; they are numbered from 0.

    Raises:
        ValueError: `cores` is less than 1.
    """
    if cores < 1:
        raise ValueError("a host has at least one core")
    of_group = {group.name: cores_of(group, cores) for group in GROUPS}
    return [_share(container, of_group[container.group], cores) for container in CONTAINERS]


def cores_of(group: Group, cores: int) -> tuple[int, ...]:
    """Return the group's cores on a host with that many cores, in order."""
    found: set[int] = set()
    for first, end in group.spans:
        # Integer arithmetic: rounding must not add or lose a core.
        found.update(range(first * cores // CORES, -(-end * cores // CORES)))
    return tuple(sorted(found))


def _share(container: Container, own: tuple[int, ...], cores: int) -> Share:
    wanted = container.limit * max(1.0, cores / CORES) if container.grows else container.limit
    limit = round(min(wanted, float(len(own))), 2)
    derived = max(1, int(limit * container.per_core)) if container.concurrency else 0
    return Share(container=container, cores=own, limit=limit, concurrency=derived)


def as_cpuset(cores: tuple[int, ...]) -> str:
    """Return ascending numbers as ranges in the kernel's notation."""
    ranges: list[list[int]] = []
    for core in cores:
        if ranges and core == ranges[-1][1] + 1:
            ranges[-1][1] = core
        else:
            ranges.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def variables(shares: list[Share]) -> dict[str, str]:
    """Return the variables of the compose files."""
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
