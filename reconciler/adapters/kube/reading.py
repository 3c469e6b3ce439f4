"""Objects out of what an API server sends, in the shape that their reader asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Generic, TypeVar, cast

import msgspec

from reconciler.adapters.kube.failures import translate
from reconciler.core.objects import mapping, text
from reconciler.errors import ClusterUnavailable
from reconciler.ports.cluster import Page, WatchEvent

# Far above what etcd takes for one object (1.5 MiB).
EVENT_BYTES = 64 * 2**20
# Events that are parsed, heard and let go together; what a watch brings after a break are many.
BATCH_EVENTS = 8

T = TypeVar("T")


class _Line(msgspec.Struct, Generic[T], gc=False):
    type: str
    object: T


class _List(msgspec.Struct, Generic[T], gc=False):
    items: list[T] | None = None
    metadata: Any = None


class Lines(Generic[T]):
    """Called with pieces of a stream, calls `hear` with the events in them, a few at a time.

    Raises what ended the watch, after the events before it: what the server says of it, or
    `ClusterUnavailable` for what is no event.
    """

    def __init__(
        self,
        shape: type[T],
        hear: Callable[[Sequence[WatchEvent[T]]], None],
        *,
        doing: str,
    ) -> None:
        self._shape = shape
        self._hear = hear
        self._doing = doing
        self._rest = b""

    def __call__(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > EVENT_BYTES:
            raise ClusterUnavailable(f"{self._doing}: an event exceeds {EVENT_BYTES} bytes")
        for begin in range(0, len(lines), BATCH_EVENTS):
            some = lines[begin : begin + BATCH_EVENTS]
            events, failure = events_of(some, self._shape, doing=self._doing)
            if events:
                self._hear(events)
            if failure:
                raise failure


def events_of(
    lines: Sequence[bytes], shape: type[T], *, doing: str
) -> tuple[list[WatchEvent[T]], Exception | None]:
    """The events of `lines`, and what ended the watch behind them, if anything did."""
    read = _decoder(_Line, cast("Any", shape)).decode
    found: list[WatchEvent[T]] = []
    for line in lines:
        if not line:
            continue
        try:
            told = read(line)
        except msgspec.DecodeError:
            return found, ClusterUnavailable(f"{doing}: a line is not a watch event")
        kind, obj = told.type, told.object
        if kind == "BOOKMARK":
            obj = msgspec.convert({"metadata": {"resourceVersion": _version(line)}}, shape)
        elif kind == "ERROR":
            status = _whole(line)
            code = status.get("code")
            return found, translate(code if isinstance(code, int) else 500, status, doing=doing)
        found.append(WatchEvent(kind, obj))
    return found, None


def page_of(content: bytes, shape: type[T], *, doing: str) -> Page[T]:
    """Raises `ClusterUnavailable` when it is not a list of objects."""
    try:
        answer = _decoder(_List, cast("Any", shape)).decode(content)
    except msgspec.DecodeError as error:
        raise ClusterUnavailable(f"{doing}: the answer is not a list: {error}") from error
    meta = mapping(answer.metadata)
    token = text(meta.get("continue")) or None
    return Page(answer.items or [], text(meta.get("resourceVersion")), token)


@cache
def _decoder(form: Any, shape: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(form[shape])


def _whole(line: bytes) -> dict[str, Any]:
    return dict(mapping(_decoder(_Line, dict).decode(line).object))


def _version(line: bytes) -> str:
    return text(mapping(_whole(line).get("metadata")).get("resourceVersion"))
