"""Kept bytes: as long as a Script runs them or may return to them, and no longer."""

from __future__ import annotations

import hashlib
from typing import Any

from reconciler.controllers.keeping import Keeping
from reconciler.controllers.world import World
from reconciler.core.objects import ObjectKey
from reconciler.core.scripts import decode_script
from reconciler.core.store import Entry
from tests.controllers.runpath import spec
from tests.fakes.registry import FakeRegistry

CONTENTS = [f"version {number}".encode() for number in range(6)]
ONE, TWO, THREE, FOUR, FIVE, GONE = (
    "sha256:" + hashlib.sha256(content).hexdigest() for content in CONTENTS
)


def keeping(**scripts: dict[str, Any]) -> tuple[Keeping, FakeRegistry]:
    """With everything stored."""
    world, registry = World(), FakeRegistry()
    for content in CONTENTS:
        registry.store(content)
    entries = {}
    for name, parts in scripts.items():
        key = ObjectKey("team", name)
        metadata = {"name": name, "namespace": "team", "uid": name, "generation": 1}
        entries[key] = Entry(name, "1", decode_script({"metadata": metadata, **parts}))
    list(world.scripts.replace(entries))
    return Keeping(world, registry), registry


def status(digest: str, *kept: str) -> dict[str, Any]:
    versions = [
        {"revision": n, "version": str(n), "digest": it, "ext": "js", "spec": {}}
        for n, it in enumerate(kept)
    ]
    rollout = {"rollout": {"versions": versions}} if kept else {}
    return {"spec": spec(), "status": {"digest": digest, **rollout}}


def test_what_was_kept_for_scripts_that_went_while_nobody_looked_goes_at_the_start():
    pinned = spec(manifest={**spec()["manifest"], "digest": FIVE})
    kept, registry = keeping(
        runs=status(ONE), rolls=status(TWO, TWO, THREE, FOUR), asks={"spec": pinned}
    )
    kept.sweep()
    assert registry.stored() == {ONE, TWO, THREE, FOUR, FIVE}
    assert (registry.read(GONE), registry.read(THREE)) == (None, CONTENTS[2])


def test_what_one_script_needs_no_more_stays_while_another_does():
    kept, registry = keeping(a=status(ONE, ONE, TWO), b=status(THREE, THREE, TWO))
    for digest in (ONE, TWO):
        kept.release(ObjectKey("team", "a"), digest)
    assert registry.stored() == {TWO, THREE, FOUR, FIVE, GONE}
