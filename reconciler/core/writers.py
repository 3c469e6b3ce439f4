"""Scripts that write one property, where nothing says whose word counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from reconciler.core.admission import Desired
from reconciler.core.objects import ObjectKey
from reconciler.core.places import Places
from reconciler.core.problems import Problem, escape
from reconciler.core.uses import Capability

# In a message, beside the one that it is about.
MOST_NAMED = 5


def problems(
    scripts: Mapping[ObjectKey, Desired], capabilities: Sequence[Capability], places: Places
) -> Iterator[Problem]:
    """A warning for each Script that shares a property with others of its priority.

    Not where all set it to one and the same value, nor for those that are suspended; and not where
    a source does not tell which property it writes.
    """
    writers: defaultdict[tuple[str, str, str], list[tuple[int, str, Capability]]] = defaultdict(
        list
    )
    for it in capabilities:
        spec = scripts[it.script].script
        if spec is not None and not spec.suspend:
            for touch in it.writes:
                if touch.property:
                    place = (it.script.namespace, touch.device, touch.property)
                    writers[place].append((spec.execute_policy.priority, touch.alias, it))
    for (_, device, name), found in writers.items():
        texts = {it.sets.get((device, name)) for _, _, it in found}
        if len(texts) == 1 and len(next(iter(texts)) or ()) == 1:
            continue
        equals: defaultdict[int, set[ObjectKey]] = defaultdict(set)
        for priority, _, it in found:
            equals[priority].add(it.script)
        first = {at: sorted(keys)[: MOST_NAMED + 1] for at, keys in equals.items()}
        for priority, alias, it in found:
            others = [key for key in first[priority] if key != it.script][:MOST_NAMED]
            if others:
                rest = len(equals[priority]) - 1 - len(others)
                message = (
                    f"{it.script} writes {device}/{name}, and so do {', '.join(map(str, others))}"
                    f"{f' and {rest} more' if rest else ''}: the newest counts; say whose word "
                    "does with executePolicy.priority"
                )
                pointer = f"/spec/writeSelector/matchNames/{escape(alias)}"
                script = scripts[it.script]
                yield places.problem(script, pointer, "SeveralWriters", message, "warning")
