"""One repository, read: from a commit to manifests and published artifacts, by what changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import PurePosixPath

from reconciler.api.scriptrepository import ScriptRepositorySpec
from reconciler.core import layout
from reconciler.core.manifests import ManifestSet, Problem
from reconciler.core.objects import ObjectKey, Reference
from reconciler.core.repositories import RepositoryRecord
from reconciler.errors import SourceInvalid, VersionImmutable
from reconciler.ports.git import Commit, FileChange, Refusal, Source, TreeId
from reconciler.ports.registry import ArtifactRef, Registry
