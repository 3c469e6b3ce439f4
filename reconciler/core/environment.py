"""What a run finds in its environment that nobody else may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import orjson

from reconciler.core.objects import Json
from reconciler.core.redacting import SHORTEST_SECRET, Hiding
from reconciler.core.runs import RunRecord

# What stands where a secret was, as build servers have it.
HIDDEN: Final = "***"


@dataclass(frozen=True, eq=False)
class Environment:
    """The values of `envFrom`. `repr` shows none.

    Hidden is a value wherever it stands, as it is and as it is carried (`core.redacting` says
    how). Not promised: one that is shorter than `SHORTEST_SECRET`, for it would be everywhere.
    """

    values: Mapping[str, str] = field(repr=False)
    # Hidden too.
    others: tuple[str, ...] = field(default=(), repr=False)

    def hiding(self, other: Environment) -> Environment:
        """This one, where the values of `other` are hidden as well."""
        return replace(self, others=(*self.others, *other.values.values()))

    @cached_property
    def _hiding(self) -> Hiding:
        secrets = (*self.values.values(), *self.others)
        # Keys of several lines are printed line by line as well.
        lines = {line.strip() for it in secrets for line in it.splitlines()}
        return Hiding({it: HIDDEN for it in (*secrets, *lines) if len(it) >= SHORTEST_SECRET})

    def text(self, value: str) -> str:
        return self._hiding.text(value) if value else value

    def document(self, content: bytes) -> bytes:
        """JSON with its strings, and the names of its members, hidden where need be."""
        hidden: Json = self._hiding(orjson.loads(content))
        return orjson.dumps(hidden)

    def record(self, record: RunRecord) -> RunRecord:
        """What is remembered and told of a run."""
        if not self.values and not self.others:
            return record
        return replace(
            record,
            message=self.text(record.message),
            changed=tuple(map(self.text, record.changed)),
            unchanged=tuple(map(self.text, record.unchanged)),
            refused=tuple(map(self.text, record.refused)),
            outranked=tuple(map(self.text, record.outranked)),
            logs=tuple(line._replace(text=self.text(line.text)) for line in record.logs),
        )


NOTHING: Final = Environment({})
