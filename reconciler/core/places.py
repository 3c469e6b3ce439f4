"""Findings about objects that are good by themselves, with the lines they stand at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import PurePosixPath

from reconciler.core import yamldocs
from reconciler.core.admission import Desired
from reconciler.core.problems import Problem, Severity


class Places:
    """Makes problems of places in manifests; reads a file again only where it has one."""

    def __init__(self, files: Mapping[PurePosixPath, bytes]) -> None:
        self._files = files
        self._read = lru_cache(maxsize=64)(self._documents)

    def problem(
        self, desired: Desired, pointer: str, reason: str, message: str, severity: Severity
    ) -> Problem:
        """A finding at `pointer` below the object."""
        return replace(
            desired.problem(pointer, reason, message),
            line=self._line(desired, pointer),
            severity=severity,
        )

    def _line(self, desired: Desired, pointer: str) -> int:
        for document in self._read(desired.path):
            if (document.line, document.pointer) == (desired.line, desired.pointer):
                return document.line_of(pointer)
        return desired.line

    def _documents(self, path: PurePosixPath) -> tuple[yamldocs.Document, ...]:
        return yamldocs.read(path, self._files.get(path, b"")).documents
