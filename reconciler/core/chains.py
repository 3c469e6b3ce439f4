"""What a change of a device follows from: a run that wrote it, or the device itself.

A run follows another one when a value that the other has set sets it off. Runs that follow each
other are a chain. Nothing keeps a list of chains: each desired value carries the place of its run,
see `core.origins`, so that a chain outlives any process of ours.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from reconciler.core import origins
from reconciler.core.runs import RunId
from reconciler.core.twins import DeviceRecord, Twin

# What a device reports of a property so soon after it was written counts as brought about by that,
# whatever the value: some round, clamp or translate what is desired. And what waits for so long
# between a change and its run is slow enough to be no chain. Seconds.
SOON: Final = 2.0
# Over which the runs of one chain are counted. Seconds.
WINDOW: Final = 60.0
# Chains that are counted: those of a minute at more than a hundred begun in each second.
MOST_CHAINS: Final = 10_000


class Limits(NamedTuple):
    """How many runs a run may follow, and how many runs of one chain a minute may have."""

    depth: int = 8
    runs: int = 100


DEFAULT_LIMITS: Final = Limits()


class Link(NamedTuple):
    """The place of a run in its chain: `depth` runs led to it. The default begins a chain.

    `by` is the name of the Script that wrote to `device`.
    """

    depth: int = 0
    chain: RunId = RunId("")
    device: str = ""
    by: str = ""


BEGINS: Final = Link()

# By property: the run whose value the device was seen to have taken over.
Arrived: TypeAlias = Mapping[str, RunId]


@dataclass(frozen=True, slots=True)
class Change:
    """What a report is to one Script.

    `links` are those of the properties whose value is another one, None for an echo: the arrival of
    what the Script itself had set.
    """

    links: Mapping[str, Link | None]
    arrived: Arrived


_NONE: Final = Change({}, {})


class Verdict(NamedTuple):
    """Where a run for a change is in its chain; None where there is none to be.

    It is an echo then, or `broken` is the place that is one too many, and `why` says so.
    """

    link: Link | None = None
    broken: Link | None = None
    why: str = ""


def change(
    device: DeviceRecord,
    before: Mapping[str, str],
    arrived: Arrived,
    *,
    script: str,
    now: float,
    may_loop: bool = False,
) -> Change:
    """What has changed in a device since `before`, the known reported values by property.

    A value follows from the run that set it when it comes for the first time since then, or
    `SOON`. What a device reports later, of its own accord or because of a person, begins a chain,
    be it the same value. To a Script that `may_loop` nothing is an echo, and the runs before it do
    not count.
    """
    changed = [
        it for it in device.twins if it.reported is not None and before.get(it.name) != it.reported
    ]
    if not device.origins:
        return Change({it.name: BEGINS for it in changed}, {}) if changed else _NONE
    links: dict[str, Link | None] = {}
    for twin in changed:
        link, is_first = _link(device, twin, arrived, now)
        if may_loop:
            links[twin.name] = link._replace(depth=0)
        else:
            links[twin.name] = None if is_first and link.by == script else link
    return Change(links, {**arrived, **dict(_there(device))})


def arrived(device: DeviceRecord, before: Mapping[str, str]) -> Arrived:
    """What had been taken over when `before` was reported."""
    twins = {twin.name: twin.reported for twin in device.twins}
    return {name: run for name, run in _there(device) if before.get(name) == twins[name]}


def deepest(links: Iterable[Link]) -> Link | None:
    return max(links, default=None, key=lambda it: (it.depth, bool(it.chain)))


def _link(device: DeviceRecord, twin: Twin, arrived: Arrived, now: float) -> tuple[Link, bool]:
    """Also says whether the value comes for the first time since it was set."""
    origin = origins.of(device.origins, twin.name, twin.desired)
    if origin is None:
        return BEGINS, False
    is_first = _is_there(twin) and arrived.get(twin.name) != origin.run_id
    if not is_first and abs(now - origin.at) >= SOON:
        return BEGINS, False
    return Link(origin.depth + 1, origin.first, device.key.name, origin.script), is_first


def _there(device: DeviceRecord) -> Iterator[tuple[str, RunId]]:
    for twin in device.twins:
        origin = origins.of(device.origins, twin.name, twin.desired)
        if origin is not None and _is_there(twin):
            yield twin.name, origin.run_id


def _is_there(twin: Twin) -> bool:
    """Whether the device has what is desired of it; 5 and 5.0 are one value."""
    if twin.reported is None or twin.desired is None:
        return False
    if twin.reported == twin.desired:
        return True
    try:
        return float(twin.reported) == float(twin.desired)
    except ValueError:
        return False


class Chains:
    """Says which runs may not be because of the chain that they are in. Belongs to one thread."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        # When the first of those counted was, and how many there are.
        self._runs: OrderedDict[RunId, tuple[float, int]] = OrderedDict()

    def verdict(self, all_: Iterable[Link | None], now: float) -> Verdict:
        """A change that is one too many hides none that is not."""
        broken, why = None, ""
        links: list[Link] = []
        for link in all_:
            hindrance = "" if link is None else self.hindrance(link, now)
            if hindrance:
                broken, why = link, hindrance
            elif link is not None:
                links.append(link)
        link = deepest(links)
        return Verdict(None, broken, why) if link is None else Verdict(link)

    def hindrance(self, link: Link, now: float) -> str:
        """Why a run at this place is one too many; empty for one that may be."""
        if link.depth > self._limits.depth:
            return (
                f"it would follow {link.depth} runs that set each other off, and may follow "
                f"{self._limits.depth}"
            )
        if link.chain and self._counted(link.chain, now) >= self._limits.runs:
            return (
                f"a chain of runs that set each other off had {self._limits.runs} within "
                f"{WINDOW:.0f}s, and may not have more"
            )
        return ""

    def count(self, chain: RunId, now: float) -> None:
        if not chain:
            return
        held = self._counted(chain, now)
        since = self._runs.pop(chain)[0] if held else now
        self._runs[chain] = (since, held + 1)
        if len(self._runs) > MOST_CHAINS:
            self._runs.popitem(last=False)

    def _counted(self, chain: RunId, now: float) -> int:
        since, count = self._runs.get(chain, (now, 0))
        return count if 0 <= now - since < WINDOW else 0
