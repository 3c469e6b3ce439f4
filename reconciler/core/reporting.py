"""From what was found to what is reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from reconciler.api.report import DeviceUse, Finding, ReportObject, RuleUse, Summary
from reconciler.core.objects import Reference
from reconciler.core.problems import Problem
from reconciler.core.reasons import kebab
from reconciler.core.uses import Capability, Touch


def finding(problem: Problem) -> Finding:
    return Finding(
        reason=kebab(problem.reason),
        severity=problem.severity,
        message=problem.message,
        path=str(problem.path),
        line=problem.line,
        column=problem.column,
        pointer=problem.pointer,
        object=None if problem.reference is None else named(problem.reference),
    )


def named(reference: Reference) -> ReportObject:
    return ReportObject(**reference._asdict())


def counts(problems: Iterable[Problem]) -> Counter[str]:
    return Counter(problem.severity for problem in problems)


def summary(problems: Sequence[Problem], *, files: int, objects: int) -> Summary:
    counted = counts(problems)
    return Summary(
        files=files,
        objects=objects,
        errors=counted["error"],
        warnings=counted["warning"],
        notes=counted["note"],
    )


def rule(capability: Capability) -> RuleUse:
    return RuleUse(
        namespace=capability.script.namespace,
        name=capability.script.name,
        artifact=capability.artifact,
        reads=[_use(touch) for touch in capability.reads],
        writes=[_use(touch) for touch in capability.writes],
        env=list(capability.env),
        fetches=list(capability.fetches),
        exact=capability.is_exact,
    )


def _use(touch: Touch) -> DeviceUse:
    return DeviceUse(device=touch.device, property=touch.property, alias=touch.alias)
