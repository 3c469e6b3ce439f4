"""Frames between supervisor and worker: a length, one line of JSON, and a body of any bytes.

Requests: `open` (type, script, file, alone, and drop: scripts to close before; body: source),
`check` (type, file; body: source), `run` (type, of: pairs of a script and its number of runs; body:
the batch). Each is answered by one frame, in order: `ok`, `us` (time taken) and for a refusal
`message`. The first frame of a worker is its greeting and answers nothing.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

LENGTH: Final = struct.Struct("!I")

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""Twice the largest message of the wire: a batch or its completions never come near it."""


class FrameInvalid(ValueError):
    """The other side sent something that is not a frame."""


def encode(head: Mapping[str, object], body: bytes = b"") -> bytes:
    line = orjson.dumps(head)
    return b"".join((LENGTH.pack(len(line) + 1 + len(body)), line, b"\n", body))


def decode(frame: bytes) -> tuple[dict[str, object], bytes]:
    """Split a frame (without its length) into head and body.

    Raises:
        FrameInvalid: the head is not a JSON object.
    """
    line, _, body = frame.partition(b"\n")
    try:
        head = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise FrameInvalid("the head of a frame is not JSON") from error
    if not isinstance(head, dict):
        raise FrameInvalid("the head of a frame is not an object")
    return head, body
