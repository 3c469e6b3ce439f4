"""MQTT topic filters: which of them match a topic. They are well formed, see `api.script`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_SHARED: Final = "$share/"


def shared(group: str, topic_filter: str) -> str:
    """The filter as it is subscribed to: by `group`, where there is one."""
    return f"{_SHARED}{group}/{topic_filter}" if group else topic_filter


def unshared(subscription: str) -> str:
    """The topic filter of a subscription, shared or not."""
    if not subscription.startswith(_SHARED):
        return subscription
    return subscription.removeprefix(_SHARED).partition("/")[2]


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic is among those of a well formed filter.

    Topics that begin with $ are the broker's own: no wildcard on the first level stands for them.
    """
    wanted, given = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(given) or level not in {"+", given[index]}:
            return False
    return len(wanted) == len(given)


def covers(granted: str, wanted: str) -> bool:
    """Whether all topics of one well formed filter are among those of another."""
    ours, theirs = granted.split("/"), wanted.split("/")
    if wanted.startswith("$") and ours[0] in {"+", "#"}:
        return False
    for index, level in enumerate(ours):
        if level == "#":
            return True
        if index >= len(theirs) or theirs[index] == "#" or level not in {"+", theirs[index]}:
            return False
    return len(ours) == len(theirs)


@dataclass(slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    subscriptions: set[str] = field(default_factory=set)


class Subscriptions:
    """Subscriptions, looked up by topic. Costs the levels of a topic, not their number."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, subscription: str) -> None:
        node = self._root
        for level in unshared(subscription).split("/"):
            node = node.children.setdefault(level, _Node())
        node.subscriptions.add(subscription)

    def remove(self, subscription: str) -> None:
        """Leaves nothing behind, also of one that is not there."""
        path = [self._root]
        levels = unshared(subscription).split("/")
        for level in levels:
            child = path[-1].children.get(level)
            if child is None:
                return
            path.append(child)
        path[-1].subscriptions.discard(subscription)
        for parent, level in zip(reversed(path[:-1]), reversed(levels), strict=True):
            child = parent.children[level]
            if not child.children and not child.subscriptions:
                del parent.children[level]

    def matching(self, topic: str) -> frozenset[str]:
        """All whose filter `matches`."""
        return frozenset(self._find(topic))

    def _find(self, topic: str) -> Iterator[str]:
        levels = topic.split("/")
        reserved = topic.startswith("$")
        nodes = [self._root]
        for index, level in enumerate(levels):
            following: list[_Node] = []
            for node in nodes:
                if not (reserved and index == 0):
                    if (rest := node.children.get("#")) is not None:
                        yield from rest.subscriptions
                    if (any_one := node.children.get("+")) is not None:
                        following.append(any_one)
                if level not in {"+", "#"} and (exact := node.children.get(level)) is not None:
                    following.append(exact)
            nodes = following
        for node in nodes:
            yield from node.subscriptions
            if (rest := node.children.get("#")) is not None:
                yield from rest.subscriptions
