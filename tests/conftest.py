"""Fixtures of the whole suite come from `tests.support`."""

from __future__ import annotations

pytest_plugins = ["tests.support.kube"]
