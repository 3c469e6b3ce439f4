"""Fixtures of the whole suite come from `tests.support`."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["tests.support.image", "tests.support.kube"]

# What takes long is found by `make bench`; here it would only tell of a busy machine.
settings.register_profile("scriptops", deadline=None)
settings.load_profile("scriptops")
