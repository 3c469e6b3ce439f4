"""In which order Scripts go out: wave by wave, and after those they depend on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reconciler.core.objects import JsonObject, ObjectKey, Reference, mapping, sequence, text


class Rank(NamedTuple):
    """What has a lower one goes first; `depth` is how many go before it within its wave."""

    wave: int = 0
    depth: int = 0


class Hindrance(NamedTuple):
    """Why a Script has to stay as it is: a PascalCase reason and a sentence."""

    reason: str
    message: str


def wave_of(document: JsonObject) -> int:
    wave = mapping(document.get("spec")).get("wave")
    return wave if isinstance(wave, int) else 0


def dependencies(document: JsonObject, namespace: str) -> list[ObjectKey]:
    """What `spec.dependsOn` of a Script of this namespace names, in its order."""
    wanted = sequence(mapping(document.get("spec")).get("dependsOn"))
    return [
        ObjectKey(text(item.get("namespace")) or namespace, text(item.get("name")))
        for item in map(mapping, wanted)
    ]


def ranks(documents: Mapping[ObjectKey, JsonObject]) -> Mapping[ObjectKey, Rank]:
    """The rank of each of these Scripts among these. Circles are let be: none of them comes first,
    and all of them go last in their wave.
    """
    found = {key: Rank(wave_of(document)) for key, document in documents.items()}
    left: dict[ObjectKey, set[ObjectKey]] = {}
    dependents: dict[ObjectKey, list[ObjectKey]] = {}
    for key, document in documents.items():
        wave = found[key].wave
        for other in set(dependencies(document, key.namespace)):
            if other in found and found[other].wave == wave:
                left.setdefault(key, set()).add(other)
                dependents.setdefault(other, []).append(key)
    layer: Sequence[ObjectKey] = [key for key in dependents if key not in left]
    depth = 0
    while layer:
        depth += 1
        following: list[ObjectKey] = []
        for key in layer:
            for dependent in dependents.get(key, ()):
                left[dependent].discard(key)
                if not left[dependent]:
                    del left[dependent]
                    found[dependent] = Rank(found[dependent].wave, depth)
                    following.append(dependent)
        layer = following
    for key in left:
        found[key] = Rank(found[key].wave, depth + 1)
    return found


class Missing:
    """Scripts that are not as their revision has them, and who has to wait for those."""

    def __init__(self) -> None:
        self._keys: set[ObjectKey] = set()
        # The lowest wave that lacks one, and who that is.
        self._first: tuple[int, ObjectKey] | None = None

    def __bool__(self) -> bool:
        return bool(self._keys)

    def add(self, key: ObjectKey, wave: int) -> None:
        self._keys.add(key)
        self._first = min(self._first or (wave, key), (wave, key))

    def hindrance(self, key: ObjectKey, document: JsonObject) -> Hindrance | None:
        """What keeps a Script back, if anything does: an earlier wave, or one it depends on."""
        wave = wave_of(document)
        if self._first is not None and self._first[0] < wave:
            lowest, other = self._first
            return Hindrance(
                "WaveNotReady",
                f"{_script(key)} is of wave {wave} and stays as it is: {_script(other)} of wave "
                f"{lowest} could not be deployed",
            )
        other = next((it for it in dependencies(document, key.namespace) if it in self._keys), key)
        if other == key:
            return None
        return Hindrance(
            "DependencyNotReady",
            f"{_script(key)} stays as it is: {_script(other)}, which it depends on, could not be "
            "deployed",
        )


def _script(key: ObjectKey) -> Reference:
    return Reference("Script", *key)
