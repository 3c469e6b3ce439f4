"""What engines raise, whatever the engine."""

from __future__ import annotations


class ScriptRefused(Exception):
    """The script cannot be run at all; the message is for its author."""


class BatchRefused(Exception):
    """The batch could not be read; no run of it took place."""


class EngineUnfit(Exception):
    """The engine does not run as it was told to; no script may be given to it."""
