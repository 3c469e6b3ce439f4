"""Which part of the work a namespace belongs to: a shard, which one replica leads at a time."""

from __future__ import annotations

import hashlib


def shard_of(namespace: str, shards: int) -> int:
    """From 0 up to `shards`, the same in every process and version for the same two."""
    return int.from_bytes(hashlib.sha256(namespace.encode()).digest()[:8]) % shards
