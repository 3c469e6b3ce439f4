"""Requests to others, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """A POST. `repr` shows neither headers nor body: they may hold secrets.

    `authority` are certificates to trust instead of those of the system, as PEM.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    authority: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """`headers` have lower-case names; of the body there is only the beginning."""

    status: int
    headers: Mapping[str, str]
    body: str
