"""A run of a journal as bytes: the same in a file and in a stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec

from reconciler.api.script import Qos
from reconciler.core.deliveries import Delivery
from reconciler.core.objects import ObjectKey
from reconciler.core.runs import Cause, Run, RunId, RunKey


class _First(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A run as the first version kept it."""

    attempt: int
    epoch: int
    namespace: str
    name: str
    uid: str
    cause: Cause
    created_at: float
    devices: tuple[str, ...]
    is_canary: bool
    depth: int = 0
    chain: str = ""


_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_DECODER: Final = msgspec.json.Decoder(Delivery)
_FIRST: Final = msgspec.json.Decoder(_First)


def encode(delivery: Delivery) -> bytes:
    """All but its event."""
    return _ENCODER.encode(replace(delivery, run=replace(delivery.run, event=b"")))


def decode(run_id: object, data: object, event: object) -> Delivery | None:
    """None for anything that `encode` does not make, nor did in the first version."""
    if not (isinstance(run_id, str) and isinstance(data, bytes) and isinstance(event, bytes)):
        return None
    try:
        delivery = _DECODER.decode(data)
    except msgspec.DecodeError:
        return _decode_first(RunId(run_id), data, event)
    if delivery.run.key.run_id != run_id:
        return None
    return replace(delivery, run=replace(delivery.run, event=event))


def _decode_first(run_id: RunId, data: bytes, event: bytes) -> Delivery | None:
    try:
        kept = _FIRST.decode(data)
    except msgspec.DecodeError:
        return None
    run = Run(
        key=RunKey(run_id, kept.attempt, kept.epoch),
        script=ObjectKey(kept.namespace, kept.name),
        uid=kept.uid,
        cause=kept.cause,
        created_at=kept.created_at,
        devices=frozenset(kept.devices),
        event=event,
        is_canary=kept.is_canary,
        qos=Qos.AT_LEAST_ONCE,
        depth=kept.depth,
        chain=RunId(kept.chain),
    )
    return Delivery(run=run)
