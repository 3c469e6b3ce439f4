"""When to list, when to watch and when to rest: what affects that lives here and nowhere else.

The promises, whatever the cluster does:

- The copy is a state that the cluster was in, and it never moves backwards: a list older than what
  was seen is not believed, unless the newest list the cluster has says so time and again.
- After a fault a watch goes on where it stopped. Only `Expired`, a kind that is gone, and a watch
  that breaks over and over lead to a new list: first one not older than what we have, then, where
  that cannot be had, the newest.
- No busy loop: every fault is followed by a rest, which doubles up to half a minute.

Not promised: that every change is seen; changes between a fault and a list melt into one.

States, by what they answer to:

    Listing    PageRead -> next page | replace, watch | rest (the list is stale)
               Failed   -> the newest list (expired on its first page) | rest, list
    Watching   Moved    -> stay
               Ended    -> watch | rest, watch (it ended at once and empty)
               Failed   -> rest, then watch | list
    Resting    Rested   -> list | watch
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TypeAlias

from reconciler.core.store import is_older
from reconciler.errors import LocalProtocolError

# 0.8 s doubling to 30 s, each stretched by up to its own length at random: in a long outage one
# reflector asks once in 45 s on average, and a thousand of them do not ask together.
FIRST_REST_SECONDS = 0.8
LONGEST_REST_SECONDS = 30.0
# A server may ask for more patience than we have of our own, within reason.
LONGEST_ASKED_SECONDS = 300.0
HEALTHY_SECONDS = 120.0
# Five to ten minutes at random: the longest that changes can go unseen behind a connection that
# died without a word, and an even load of new watches on a server that restarted.
WATCH_SECONDS = 300.0
# A watch that ends sooner, having told nothing, did not work.
SHORT_WATCH_SECONDS = 1.0
# Five broken watches in a row (about 25 s): something about this resourceVersion may be the cause.
BROKEN_WATCHES = 5
# Six newest lists in a row that are older than what we saw (about 40 s): a backup was restored.
STALE_LISTS = 6


class Failure(Enum):
    EXPIRED = auto()
    THROTTLED = auto()
    ABSENT = auto()
    OTHER = auto()


# Events: what happened.


@dataclass(frozen=True, slots=True)
class PageRead:
    resource_version: str
    continue_token: str | None


@dataclass(frozen=True, slots=True)
class Moved:
    """A watch told something (a bookmark counts), last at this version."""

    resource_version: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A watch came to its regular end."""


@dataclass(frozen=True, slots=True)
class Failed:
    failure: Failure
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Rested:
    pass


Event: TypeAlias = PageRead | Moved | Ended | Failed | Rested


# Effects: what to do. The last one of a step leads to the next event.


@dataclass(frozen=True, slots=True)
class List:
    """Read a page. Without a token it is the first: forget the pages read before."""

    resource_version: str
    continue_token: str | None = None


@dataclass(frozen=True, slots=True)
class Replace:
    """The pages read are the whole: hold them and nothing else."""


@dataclass(frozen=True, slots=True)
class Watch:
    resource_version: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Rest:
    seconds: float


Effect: TypeAlias = List | Replace | Watch | Rest


# States.


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is remembered across phases."""

    # The newest version told by a complete list or a watch; "" before the first.
    resource_version: str = ""
    faults: int = 0
    last_fault: float = 0.0
    broken_watches: int = 0
    stale_lists: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    seen: Seen
    asked: List


@dataclass(frozen=True, slots=True)
class Watching:
    seen: Seen
    since: float
    told: bool = False


@dataclass(frozen=True, slots=True)
class Resting:
    seen: Seen
    # What comes afterwards: a list not older than this, or None for a watch.
    relist: str | None


State: TypeAlias = Listing | Watching | Resting
Step: TypeAlias = tuple[State, tuple[Effect, ...]]


def start() -> Step:
    """The newest list: one that "any version" may answer could be older than what we last did."""
    return _list(Seen(), "")


def step(state: State, event: Event, now: float, *, chance: float) -> Step:
    """What follows. `now` is monotonic, `chance` a random number in [0, 1).

    Raises `LocalProtocolError` for an event that the state does not wait for.
    """
    match state, event:
        case Listing(seen, asked), PageRead():
            return _page(seen, asked, event, now, chance)
        case Listing(seen, List(resource_version=asked, continue_token=None)), Failed(
            Failure.EXPIRED
        ) if asked:
            return _list(seen, "")
        case Listing(seen, asked), Failed():
            newest = event.failure is Failure.EXPIRED or not asked.resource_version
            again = "" if newest else seen.resource_version
            return _rest(seen, event, now, chance, relist=again)
        case Watching(seen), Moved(version):
            if not version or is_older(version, seen.resource_version):
                version = seen.resource_version
            seen = replace(seen, resource_version=version, broken_watches=0)
            return replace(state, seen=seen, told=True), ()
        case Watching(seen, since, told), Ended() if told or now - since >= SHORT_WATCH_SECONDS:
            return _watch(replace(seen, broken_watches=0), now, chance)
        case Watching(seen), Ended():
            return _broken(seen, Failed(Failure.OTHER), now, chance)
        case Watching(seen), Failed(failure):
            if failure in (Failure.EXPIRED, Failure.ABSENT):
                return _rest(seen, event, now, chance, relist=seen.resource_version)
            if failure is Failure.THROTTLED:
                return _rest(seen, event, now, chance, relist=None)
            return _broken(seen, event, now, chance)
        case Resting(seen, relist), Rested():
            return _watch(seen, now, chance) if relist is None else _list(seen, relist)
        case _:
            raise LocalProtocolError(
                f"a reflector that is {type(state).__name__} cannot take {type(event).__name__}"
            )


def _page(seen: Seen, asked: List, page: PageRead, now: float, chance: float) -> Step:
    if page.continue_token:
        following = replace(asked, continue_token=page.continue_token)
        return Listing(seen, following), (following,)
    if is_older(page.resource_version, seen.resource_version):
        stale = seen.stale_lists + 1
        if stale < STALE_LISTS:
            seen = replace(seen, stale_lists=stale)
            return _rest(seen, Failed(Failure.OTHER), now, chance, relist="")
    seen = replace(seen, resource_version=page.resource_version, stale_lists=0, broken_watches=0)
    watching, effects = _watch(seen, now, chance)
    return watching, (Replace(), *effects)


def _list(seen: Seen, resource_version: str) -> Step:
    asked = List(resource_version)
    return Listing(seen, asked), (asked,)


def _watch(seen: Seen, now: float, chance: float) -> Step:
    effect = Watch(seen.resource_version, WATCH_SECONDS * (1 + chance))
    return Watching(seen, now), (effect,)


def _broken(seen: Seen, failed: Failed, now: float, chance: float) -> Step:
    broken = seen.broken_watches + 1
    if broken < BROKEN_WATCHES:
        return _rest(replace(seen, broken_watches=broken), failed, now, chance, relist=None)
    seen = replace(seen, broken_watches=0)
    return _rest(seen, failed, now, chance, relist=seen.resource_version)


def _rest(seen: Seen, failed: Failed, now: float, chance: float, *, relist: str | None) -> Step:
    faults = 0 if now - seen.last_fault > HEALTHY_SECONDS else seen.faults
    # 0.8 * 2**6 is beyond the longest rest; a bound keeps the power small in a long outage.
    seconds = min(LONGEST_REST_SECONDS, FIRST_REST_SECONDS * 2 ** min(faults, 6)) * (1 + chance)
    seconds = max(seconds, min(failed.retry_after, LONGEST_ASKED_SECONDS))
    seen = replace(seen, faults=faults + 1, last_fault=now + seconds)
    return Resting(seen, relist), (Rest(seconds),)
