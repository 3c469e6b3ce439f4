"""What a repository may write, and as whom: decided by an operator, outside of the repository."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final, Protocol

from pydantic import ValidationError

from reconciler.api.grants import GrantedKind, GrantRule, GrantsFile, TopicRule
from reconciler.api.scriptrepository import ScriptRepositorySpec
from reconciler.core import findings, mqtt_filters, yamldocs
from reconciler.core.admission import Scope
from reconciler.core.objects import ObjectKey
from reconciler.core.problems import Problem
from reconciler.errors import Stalled

_ALL_KINDS: Final = frozenset(kind.value for kind in GrantedKind)


class Granting(Protocol):
    """What is granted now: asked anew each time, as an operator may have changed it."""

    def scope(
        self,
        key: ObjectKey,
        spec: ScriptRepositorySpec,
        *,
        repositories: bool = False,
        cluster: str = "",
    ) -> Scope: ...

    def account(self, key: ObjectKey, spec: ScriptRepositorySpec) -> ObjectKey | None: ...

    def may_subscribe(self, namespace: str, topics: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Grants:
    """`is_open` where whoever writes ScriptRepositories is the operator: then they say it all."""

    rules: tuple[GrantRule, ...] = ()
    is_open: bool = False
    # None: nobody has said, and all may subscribe to everything.
    topics: tuple[TopicRule, ...] | None = None

    def scope(
        self,
        key: ObjectKey,
        spec: ScriptRepositorySpec,
        *,
        repositories: bool = False,
        cluster: str = "",
    ) -> Scope:
        """What of all that `spec` asks for is granted.

        A repository has its own namespace. Another one it has where a rule grants it, and, where
        no rule fits, if a ServiceAccount acts for it: then RBAC decides.
        """
        rule = self._rule(key)
        asked = frozenset(spec.namespaces) or frozenset({key.namespace})
        if self.is_open or (rule is None and spec.service_account_name is not None):
            granted = asked
        else:
            patterns = (key.namespace, *(rule.namespaces if rule is not None else ()))
            granted = frozenset(it for it in asked if _fits(it, patterns))
        return Scope(
            namespace=key.namespace,
            namespaces=granted,
            withheld=asked - granted,
            kinds=frozenset(rule.kinds) if rule is not None else _ALL_KINDS,
            repositories=repositories,
            cluster=cluster,
        )

    def account(self, key: ObjectKey, spec: ScriptRepositorySpec) -> ObjectKey | None:
        """The ServiceAccount that acts for a repository, always of its own namespace; None: we."""
        rule = self._rule(key)
        name = spec.service_account_name
        if name is None and rule is not None:
            name = rule.default_service_account
        return ObjectKey(key.namespace, name) if name is not None else None

    def may_subscribe(self, namespace: str, topics: str) -> bool:
        """Whether Scripts of a namespace may have all messages that a topic filter stands for."""
        return self.topics is None or any(
            mqtt_filters.covers(granted, topics)
            for rule in self.topics
            if _fits(namespace, rule.namespaces)
            for granted in rule.topics
        )

    def _rule(self, key: ObjectKey) -> GrantRule | None:
        return next((rule for rule in self.rules if _names(rule.repositories, key)), None)


NO_GRANTS: Final = Grants()


def read(path: PurePosixPath, content: bytes) -> Grants:
    """Raises `Stalled` with reason GrantsInvalid, naming the line."""
    file = yamldocs.read(path, content)
    problems: tuple[Problem, ...] = file.problems
    if len(file.documents) > 1:
        raise Stalled(f"{path} has more than one document; keep one", reason="GrantsInvalid")
    for document in file.documents:
        problems += findings.of_faults(document)
        try:
            if not problems:
                found = GrantsFile.model_validate(document.value, by_name=False)
                topics = None if found.mqtt is None else tuple(found.mqtt)
                return Grants(tuple(found.grants), topics=topics)
        except ValidationError as error:
            problems = findings.of_validation(error, document, GrantsFile)
    if problems:
        first = problems[0]
        raise Stalled(f"{first.path}:{first.line}: {first.message}", reason="GrantsInvalid")
    return Grants()


def _names(pattern: str, key: ObjectKey) -> bool:
    namespace, _, name = pattern.partition("/")
    return fnmatchcase(key.namespace, namespace) and fnmatchcase(key.name, name)


def _fits(namespace: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(namespace, pattern) for pattern in patterns)
