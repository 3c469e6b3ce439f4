"""One repository, read: from a commit to manifests and published artifacts, by what changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from pathlib import PurePosixPath

from reconciler.api.repository import RepositoryFile
from reconciler.api.scriptrepository import Rollback
from reconciler.controllers.verification import Verifier
from reconciler.core import layout
from reconciler.core.admission import Scope
from reconciler.core.crosscheck import CrossCheck
from reconciler.core.layout import ScriptPath
from reconciler.core.manifests import Change, ManifestSet
from reconciler.core.objects import ObjectKey, Reference
from reconciler.core.plan import Desired
from reconciler.core.problems import Problem
from reconciler.core.yamldocs import MAX_BYTES as MAX_MANIFEST_BYTES
from reconciler.errors import SourceUnavailable, Stalled, VersionImmutable
from reconciler.ports.git import Commit, CommitId, FileChange, Refusal, Source, TreeDiff
from reconciler.ports.registry import ArtifactRef, Registry

# Blobs held in memory at once: 500 files of the largest size are 500 MiB, of the usual one 1 MiB.
READ_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Reading:
    """What a fetch led to. `changed` are the objects to be planned for; empty where the tree is
    the one read before. `published` are artifacts whose bytes are new.
    """

    commit: Commit
    changed: frozenset[Reference]
    published: frozenset[ArtifactRef]
    is_first: bool
    # Who signed the commits that it comes from; empty where no signature is asked for.
    verified: str = ""


class Revisions:
    """The newest revision of one repository, read incrementally.

    The cost of a reading follows what changed since the one before. A reading that fails part-way
    leaves things so that the next one starts from the beginning. One owner, no threads.
    """

    def __init__(
        self,
        repository: ObjectKey,
        source: Source,
        registry: Registry,
        *,
        branch: str,
        folder: PurePosixPath,
        scope: Scope,
        replace_versions: bool,
        in_use: Callable[[ArtifactRef], bool],
        verifier: Verifier | None = None,
    ) -> None:
        self._repository = repository
        self._source = source
        self._registry = registry
        self._branch = branch
        self._folder = folder
        self.scope = scope
        self._replace_versions = replace_versions
        self._in_use = in_use
        self._verifier = verifier
        self._commit: Commit | None = None
        # What the branch pointed to last, whatever came of it.
        self.tip: Commit | None = None
        # Of the tip's files, those that a rollback holds as they were.
        self.reverted = 0
        self._forget()

    def _forget(self) -> None:
        self._commit = None
        self._manifests = ManifestSet(self.scope)
        self._check = CrossCheck(self._manifests)
        self._rules = RepositoryFile()
        # Problems of files other than manifests, by path.
        self._file_problems: dict[PurePosixPath, tuple[Problem, ...]] = {}
        self._leaving: set[ArtifactRef] = set()
        # Refused, and what lies below is not known or was lost with it.
        self._unread: set[PurePosixPath] = set()
        # Everything that was read and is there still.
        self._files: set[PurePosixPath] = set()

    @property
    def commit(self) -> Commit | None:
        """What was read last."""
        return self._commit

    @property
    def desired(self) -> Mapping[Reference, Desired]:
        return self._manifests.desired

    @property
    def held(self) -> frozenset[Reference]:
        """Not to be applied and not to be pruned: broken, or without its artifact."""
        return self._manifests.held | self._check.without_artifact

    @property
    def prune_safe(self) -> bool:
        return self._manifests.prune_safe and not self._unread

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Every error of the revision, by path and line."""
        files = [p for problems in self._file_problems.values() for p in problems]
        found = [*self._manifests.problems, *self._check.errors, *files]
        errors = [problem for problem in found if problem.severity == "error"]
        return tuple(sorted(errors, key=lambda p: (p.path, p.line, p.pointer)))

    def changes(self) -> AsyncIterator[None]:
        """Wake-ups of a repository on this machine."""
        return self._source.changes(self._branch)

    async def keep(self, commits: Collection[str], *, owner: str) -> None:
        """Have these to roll back to, and no others."""
        await self._source.keep([CommitId(commit) for commit in commits], owner=owner)

    async def _verify(self, commit: CommitId, timeout: timedelta) -> list[str]:
        if self._verifier is None:
            return []
        return [await self._verifier.verify(commit, timeout=timeout)]

    async def _rolled_back(self, tip: Commit, rollback: Rollback, timeout: timedelta) -> Commit:
        bad = await self._source.find(CommitId(rollback.quarantined), timeout=timeout)
        good = await self._source.find(CommitId(rollback.revision), timeout=timeout)
        reverted = await self._source.reverted(
            tip.tree,
            bad=bad.tree,
            good=good.tree,
            places=[self._folder / place for place in layout.DEPLOYED],
        )
        self.reverted = reverted.count
        return replace(tip, tree=reverted.tree)

    async def read(self, *, timeout: timedelta, rollback: Rollback | None = None) -> Reading:
        """Fetch, and take in what changed. With `rollback`, of the branch as it would be with that
        revert in it.

        Artifacts are published when it returns, so that manifests which name them may be applied.
        Raises `SourceUnavailable` and `SourceInvalid` as the source does, and `Stalled` with
        reason EmptySource when the folder is gone or holds nothing any more: what was deployed
        from it stays. Raises `SourceUnverified` before anything is read of a commit that is not
        signed as asked for.
        """
        commit = self.tip = await self._source.fetch(self._branch, timeout=timeout)
        # The very commits whose files are applied, whatever was read of an equal tree before. Of
        # the one that a rollback keeps away nothing is.
        signed = await self._verify(commit.id, timeout)
        self.reverted = 0
        if rollback is not None:
            commit = await self._rolled_back(commit, rollback, timeout)
            signed += await self._verify(CommitId(rollback.revision), timeout)
        return replace(await self._read(commit), verified="; ".join(signed))

    async def _read(self, commit: Commit) -> Reading:
        before = self._commit
        if before is not None and before.tree == commit.tree:
            self._commit = commit
            return Reading(commit, frozenset(), frozenset(), is_first=False)
        if not await self._source.has_folder(commit.tree, self._folder):
            raise Stalled(
                f"there is no folder {self._folder} in {self._branch}; nothing was changed",
                reason="EmptySource",
            )
        try:
            return await self._take(before, commit)
        except SourceUnavailable as error:
            self._forget()
            if error.reason != "RevisionGone":
                raise
            # History was rewritten, and what was read before is no longer there to compare with.
            return await self._take(None, commit)
        except BaseException:
            self._forget()
            raise

    async def _take(self, before: Commit | None, commit: Commit) -> Reading:
        diff = self._in_folder(
            await self._source.diff(
                before.tree if before else None, commit.tree, folder=self._folder
            )
        )
        by_path = {change.path: change for change in diff.changes}
        rules = by_path.get(layout.REPOSITORY_FILE)
        if before is not None and (rules is not None or self._frees_a_version(diff.changes)):
            # What was passed over may be anything: read it all again, but prune by what was known.
            gone = frozenset(self._manifests.desired)
            self._forget()
            reading = await self._take(None, commit)
            return replace(reading, changed=reading.changed | gone, is_first=False)
        if rules is not None:
            await self._take_rules(rules)
        self._require_own(diff)
        changes = [c for c in diff.changes if not layout.is_ignored(c.path, self._rules)]
        refused = _refusals(diff.refused)
        scripts, published = await self._take_scripts(changes, refused)
        manifests = await self._take_manifests(changes, refused)
        self._unread -= by_path.keys()
        for path, problem in refused.items():
            if not layout.is_manifest(path, self._overlay):
                self._file_problems[path] = (problem,)
                hides = before is None or self._below([path])
                if hides and layout.hides_manifests(path, self._overlay):
                    self._unread.add(path)
        changed = self._manifests.update(manifests)
        lacked = self._check.without_artifact
        self._check.update(changed, scripts)
        if self._manifests.is_empty:
            raise Stalled(
                f"there are no manifests in {self._folder / layout.MANIFESTS} of {self._branch}; "
                "nothing was changed",
                reason="EmptySource",
            )
        for change in changes:
            if change.blob is None:
                self._files.discard(change.path)
            else:
                self._files.add(change.path)
        self._files -= refused.keys()
        self._commit = commit
        return Reading(
            commit,
            # Those which got their artifact with this revision are ready to be applied now.
            changed.references | (lacked - self._check.without_artifact),
            frozenset(published),
            is_first=before is None,
        )

    def _frees_a_version(self, changes: Iterable[FileChange]) -> bool:
        """Whether a file leaves for which another, that is there, was refused."""
        return any(
            change.blob is None and not self._files.isdisjoint(layout.rival_paths(change.path))
            for change in changes
        )

    def _in_folder(self, diff: TreeDiff) -> TreeDiff:
        """With paths from the deployed folder, and removals of folders spelled out."""
        changes = [
            replace(change, path=change.path.relative_to(self._folder)) for change in diff.changes
        ]
        refused = [
            replace(refusal, path=str(PurePosixPath(refusal.path).relative_to(self._folder)))
            for refusal in diff.refused
        ]
        gone = [change.path for change in changes if change.blob is None]
        gone += [PurePosixPath(refusal.path) for refusal in refused]
        below = [
            FileChange(path, None)
            for path in self._below([path for path in gone if path not in self._files])
        ]
        return TreeDiff([*below, *changes], refused)

    def _below(self, folders: Collection[PurePosixPath]) -> Collection[PurePosixPath]:
        """Files that were read from below any of `folders`."""
        if not folders:
            return ()
        wanted = set(folders)
        return [path for path in self._files if not wanted.isdisjoint(path.parents)]

    async def _take_rules(self, change: FileChange) -> None:
        self._rules = RepositoryFile()
        self._file_problems.pop(change.path, None)
        if change.blob is None:
            return
        content = (await self._source.read([change.blob], limit=MAX_MANIFEST_BYTES)).get(
            change.blob
        )
        read = layout.read_repository_file(content) if content is not None else ()
        if isinstance(read, RepositoryFile):
            self._rules = read
        else:
            self._file_problems[change.path] = read

    @property
    def _overlay(self) -> str:
        """The cluster whose folder is read; "" where there are none for clusters."""
        return self.scope.cluster if self._rules.clusters else ""

    def _require_own(self, diff: TreeDiff) -> None:
        """Raises `Stalled` where it is not known, or denied, that this is deployed here."""
        problem = layout.cluster_problem(self._rules, self.scope.cluster)
        if problem:
            raise Stalled(f"{problem}; nothing was changed", reason="ClusterNotNamed")
        if layout.REPOSITORY_FILE in self._file_problems and any(
            layout.is_overlay(change.path) for change in diff.changes
        ):
            first = self._file_problems[layout.REPOSITORY_FILE][0]
            raise Stalled(
                f"{first.path}:{first.line}: {first.message}. Until it can be read nobody knows "
                f"what {layout.CLUSTERS}/ is for; nothing was changed",
                reason="RepositoryFileInvalid",
            )

    async def _take_manifests(
        self, changes: Iterable[FileChange], refused: Mapping[PurePosixPath, Problem]
    ) -> Mapping[PurePosixPath, Change]:
        cluster = self._overlay
        wanted = [change for change in changes if layout.is_manifest(change.path, cluster)]
        taken: dict[PurePosixPath, Change] = {
            path: problem for path, problem in refused.items() if layout.is_manifest(path, cluster)
        }
        taken.update({change.path: None for change in wanted if change.blob is None})
        async for change, content in self._contents(wanted, limit=MAX_MANIFEST_BYTES):
            taken[change.path] = content if content is not None else _too_large(change)
        return taken

    async def _take_scripts(
        self,
        changes: Collection[FileChange],
        refused: Mapping[PurePosixPath, Problem],
    ) -> tuple[Mapping[PurePosixPath, bool], Collection[ArtifactRef]]:
        """Publish what is new; whether each path is there now, and the refs with new bytes."""
        present: dict[PurePosixPath, bool] = dict.fromkeys(refused, False)
        came = {change.path: change.blob is not None for change in changes}
        items: list[tuple[PurePosixPath, ArtifactRef, bytes]] = []
        wanted: list[FileChange] = []
        for change in changes:
            parsed = layout.parse_script_path(change.path)
            self._file_problems.pop(change.path, None)
            if isinstance(parsed, Problem) and change.blob is not None:
                self._file_problems[change.path] = (parsed,)
            elif isinstance(parsed, ScriptPath) and change.blob is None:
                present[change.path] = False
                self._leaving.add(self._ref(parsed))
            elif isinstance(parsed, ScriptPath):
                wanted.append(change)
        published: set[ArtifactRef] = set()
        async for change, content in self._contents(wanted, limit=layout.MAX_SCRIPT_BYTES):
            problem = layout.script_problem(change.path, change.size, content)
            parsed = layout.parse_script_path(change.path)
            if problem is not None or content is None or not isinstance(parsed, ScriptPath):
                self._file_problems[change.path] = (problem or _too_large(change),)
                present[change.path] = False
                continue
            present[change.path] = True
            self._leaving.discard(self._ref(parsed))
            problem = self._only_one(change.path, self._ref(parsed), came)
            if problem is not None:
                self._file_problems[change.path] = (problem,)
                continue
            items.append((change.path, self._ref(parsed), content))
            if len(items) >= READ_AT_ONCE:
                published |= await self._publish(items)
                items.clear()
        published |= await self._publish(items)
        return present, published

    def _only_one(
        self, path: PurePosixPath, ref: ArtifactRef, came: Mapping[PurePosixPath, bool]
    ) -> Problem | None:
        """Why `path` may not be published beside another file of the same version.

        `came` says of files of this revision whether they came or went.
        """
        for other in sorted(layout.rival_paths(path)):
            rival = ref._replace(ext=other.suffix[1:])
            is_here = came.get(other, other in self._files)
            if not is_here and self._registry.resolve(rival) is None:
                continue
            if not is_here and (self._replace_versions or not self._in_use(rival)):
                self._registry.remove(rival)
                self._leaving.discard(rival)
                continue
            if is_here and path < other:
                continue
            message = (
                f"{other} is the same version; keep one"
                if is_here
                else f"{ref.version} was published as {other}; a version is immutable: "
                f"name the file otherwise, and set spec.manifest.version"
            )
            reason = "VersionTwice" if is_here else "VersionImmutable"
            return Problem(path=path, line=0, pointer="", reason=reason, message=message)
        return None

    async def _publish(
        self, items: Collection[tuple[PurePosixPath, ArtifactRef, bytes]]
    ) -> set[ArtifactRef]:
        before = {ref: self._registry.resolve(ref) for _, ref, _ in items}
        answers = await self._registry.publish_all(
            [(ref, content) for _, ref, content in items], replace=self._replace_versions
        )
        published: set[ArtifactRef] = set()
        for (path, ref, _), answer in zip(items, answers, strict=True):
            if isinstance(answer, VersionImmutable):
                self._file_problems[path] = (
                    Problem(
                        path=path, line=0, pointer="", reason=answer.reason, message=str(answer)
                    ),
                )
                continue
            old = before[ref]
            if old is None or old.digest != answer.digest:
                published.add(ref)
        return published

    def collect(self) -> None:
        """Forget artifacts that left the repository, as soon as no live Script names them."""
        for ref in tuple(self._leaving):
            if not self._in_use(ref):
                self._registry.remove(ref)
                self._leaving.discard(ref)

    async def _contents(
        self, changes: Iterable[FileChange], *, limit: int
    ) -> AsyncIterator[tuple[FileChange, bytes | None]]:
        """Each change with its bytes; None for one that is larger than `limit`."""
        left = iter([change for change in changes if change.blob is not None])
        while batch := list(islice(left, READ_AT_ONCE)):
            blobs = await self._source.read([c.blob for c in batch if c.blob], limit=limit)
            for change in batch:
                yield change, blobs.get(change.blob or "")

    def _ref(self, path: ScriptPath) -> ArtifactRef:
        return ArtifactRef(self._repository.namespace, self._repository.name, *path)

    def close(self) -> None:
        self._source.close()


def _refusals(refused: Iterable[Refusal]) -> dict[PurePosixPath, Problem]:
    return {
        PurePosixPath(refusal.path): Problem(
            path=PurePosixPath(refusal.path),
            line=0,
            pointer="",
            reason=refusal.reason,
            message=refusal.message,
        )
        for refusal in refused
    }


def _too_large(change: FileChange) -> Problem:
    return Problem(
        path=change.path,
        line=0,
        pointer="",
        reason="FileTooLarge",
        message=f"the file has {change.size} bytes, more than scriptops reads; split it",
    )
