"""Where things stand in a repository. All paths are relative to the folder that is deployed.

scriptops.yaml                       optional
manifests/**/*.yaml, .yml, .json     objects
clusters/<name>/**/*.yaml, ...       objects of one cluster, where scriptops.yaml names it
scripts/<name>/<version>.<ext>       artifacts
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePosixPath
from re import DOTALL, fullmatch
from typing import Final, NamedTuple

from pydantic import ValidationError

from reconciler.api.repository import RepositoryFile
from reconciler.api.script import ARTIFACT_NAME, PACKAGES, ScriptType
from reconciler.core import findings, wasmfile, yamldocs
from reconciler.core.problems import Problem, Severity, quoted, suggestion

REPOSITORY_FILE: Final = PurePosixPath("scriptops.yaml")
MANIFESTS: Final = "manifests"
CLUSTERS: Final = "clusters"
SCRIPTS: Final = "scripts"
# All that is read of a repository.
DEPLOYED: Final = (
    REPOSITORY_FILE,
    *map(PurePosixPath, (MANIFESTS, CLUSTERS, SCRIPTS)),
)
# Beside a version, and no version itself.
TEST_SCRIPT: Final = ".test.js"
MANIFEST_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
SCRIPT_EXTENSIONS: Final = frozenset(ext for t in ScriptType for ext in t.extensions)
# An artifact goes to every executor and is held in memory there.
MAX_SCRIPT_BYTES: Final = 1 << 20
LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"


class ScriptPath(NamedTuple):
    """What a path below `scripts/` names."""

    name: str
    version: str
    ext: str


def _finding(path: PurePosixPath, reason: str, message: str, severity: Severity) -> Problem:
    return Problem(path=path, line=0, pointer="", reason=reason, message=message, severity=severity)


def script_path(name: str, version: str, ext: str) -> PurePosixPath:
    return PurePosixPath(SCRIPTS, name, f"{version}.{ext}")


# Paths are dear to make, and of each version this is asked for every Script that runs it.
@lru_cache(maxsize=4096)
def script_paths(name: str, version: str, script_type: ScriptType) -> tuple[PurePosixPath, ...]:
    """Where the artifact of a version may lie; it lies in one of them, or is ambiguous."""
    return tuple(script_path(name, version, ext) for ext in script_type.extensions)


def next_version(version: str) -> str:
    """The version a person would take next: the last number counted up, or `.1` appended."""
    head, number, tail = fullmatch(r"(.*?)([0-9]*)([^0-9]*)", version, DOTALL).groups()  # type: ignore[union-attr]  # matches every string
    if not number:
        return f"{version}.1"
    return f"{head}{int(number) + 1:0{len(number)}d}{tail}"


def rivals(ext: str) -> frozenset[str]:
    """Extensions that the same version must not have besides."""
    types = (t.extensions for t in ScriptType)
    return frozenset(other for exts in types if ext in exts for other in exts) - {ext}


def rival_paths(path: PurePosixPath) -> frozenset[PurePosixPath]:
    """Where a script file's version must not lie besides; nothing for other files."""
    if not isinstance(parse_script_path(path), ScriptPath):
        return frozenset()
    return frozenset(path.with_suffix(f".{ext}") for ext in rivals(path.suffix[1:]))


def extension_of(content: bytes, script_type: ScriptType) -> str:
    """What bytes without a name were, by how they begin: no script begins like a package."""
    if content.startswith(b"PK"):
        return "zip"
    return "gz" if content.startswith(b"\x1f\x8b") else script_type.ext


def is_package(path: PurePosixPath) -> bool:
    """Whether a script file has to be unpacked."""
    return path.suffix.removeprefix(".") in PACKAGES


def parse_script_path(path: PurePosixPath) -> ScriptPath | Problem | None:
    """What `path` names; None for what is no script, such as a README beside them."""
    if path.parts[:1] != (SCRIPTS,) or path.suffix.removeprefix(".") not in SCRIPT_EXTENSIONS:
        return None
    if path.name.endswith(TEST_SCRIPT) or any(part.startswith(".") for part in path.parts):
        return None
    if len(path.parts) != 3:
        message = "scripts are only looked for at scripts/<name>/<version>.<ext>; move it there"
        return _finding(path, "ScriptMisplaced", message, "note")
    if path.suffix == ".gz" and (inner := PurePosixPath(path.stem).suffix) in {".js", ".wasm"}:
        message = (
            f"{inner[1:]} is what scriptType says already; "
            f"rename it to {path.with_name(PurePosixPath(path.stem).stem + path.suffix)}"
        )
        return _finding(path, "InvalidName", message, "error")
    for part in (path.parts[1], path.stem):
        if not fullmatch(ARTIFACT_NAME, part):
            message = (
                f"{quoted(part)} cannot be a name or version; use letters, digits and . _ + -, "
                "at most 128, beginning with a letter or digit"
            )
            return _finding(path, "InvalidName", message, "error")
    return ScriptPath(path.parts[1], path.stem, path.suffix[1:])


def script_problem(path: PurePosixPath, size: int, content: bytes | None) -> Problem | None:
    """Why a script file cannot be published, as far as size and first bytes tell.

    `content` may be None for a blob that was not read because of its size.
    """
    if size > MAX_SCRIPT_BYTES:
        message = f"the script has {size} bytes, more than {MAX_SCRIPT_BYTES}; make it smaller"
        return _finding(path, "ScriptTooLarge", message, "error")
    if content is not None and content.startswith(LFS_POINTER):
        return lfs_problem(path)
    is_wasm = path.suffix == f".{ScriptType.WASM.ext}"
    if content is not None and is_wasm and (why := wasmfile.problem(content)) is not None:
        return _finding(path, "ScriptInvalid", why, "error")
    return None


def lfs_problem(path: PurePosixPath) -> Problem:
    message = "this is a Git LFS pointer, not the file; LFS is not fetched, so commit the file"
    return _finding(path, "LfsPointer", message, "error")


def is_overlay(path: PurePosixPath) -> bool:
    """Whether what `path` holds is meant for one cluster."""
    return path.parts[:1] == (CLUSTERS,)


def overlay_of(path: PurePosixPath) -> str:
    """The cluster that a file is meant for; "" for all."""
    return path.parts[1] if is_overlay(path) and len(path.parts) > 2 else ""


def hides_manifests(path: PurePosixPath, cluster: str) -> bool:
    """Whether manifests of `cluster` may lie in, or below, an entry that is not read."""
    if is_overlay(path):
        return bool(cluster) and path.parts[1:2] in {(), (cluster,)}
    return path.parts[:1] == (MANIFESTS,)


def is_manifest(path: PurePosixPath, cluster: str = "") -> bool:
    """Whether `path` is read for objects, of `cluster` or of all. Names that begin with a dot are
    passed over.
    """
    return (
        (path.parts[:1] == (MANIFESTS,) or (bool(cluster) and overlay_of(path) == cluster))
        and path.suffix in MANIFEST_SUFFIXES
        and not any(part.startswith(".") for part in path.parts)
    )


def cluster_problem(repository: RepositoryFile, cluster: str) -> str:
    """Why what the file belongs to is not for `cluster`; "" if it is."""
    if not repository.clusters or cluster in repository.clusters:
        return ""
    named = f"{REPOSITORY_FILE} names the clusters {', '.join(repository.clusters)}"
    return f"{named}, and not {quoted(cluster)}" if cluster else named


def unnamed_clusters(
    repository: RepositoryFile, files: Iterable[PurePosixPath]
) -> Iterator[Problem]:
    """A warning for each folder of a cluster that nobody named."""
    folders = sorted({overlay_of(path) for path in files} - {"", *repository.clusters})
    for folder in folders:
        near = suggestion(folder, repository.clusters)
        message = (
            f"no manifest here is deployed to anything: {REPOSITORY_FILE} does not name "
            f"{quoted(folder)} in its clusters{near}"
        )
        yield _finding(PurePosixPath(CLUSTERS, folder), "ClusterNotNamed", message, "warning")


def is_ignored(path: PurePosixPath, repository: RepositoryFile) -> bool:
    """Whether scriptops.yaml says to pass over `path` or a folder that it lies in."""
    names = [str(path), *map(str, path.parents)]
    return any(fnmatchcase(n, i.strip("/")) for i in repository.ignore for n in names)


def read_repository_file(content: bytes) -> RepositoryFile | tuple[Problem, ...]:
    """`scriptops.yaml`. An empty file says nothing, and that is good."""
    file = yamldocs.read(REPOSITORY_FILE, content)
    if file.problems or not file.documents:
        return file.problems or RepositoryFile()
    if len(file.documents) > 1:
        message = "the file has more than one document; keep one"
        return (_finding(REPOSITORY_FILE, "TooManyDocuments", message, "error"),)
    document = file.documents[0]
    if document.faults:
        return findings.of_faults(document)
    try:
        return RepositoryFile.model_validate(document.value, by_name=False)
    except ValidationError as error:
        return findings.of_validation(error, document, RepositoryFile)
