"""`render`: the manifests of a repository for whoever applies them instead of scriptops."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
import yaml
from pydantic import TypeAdapter, ValidationError

from reconciler.adapters import worktree
from reconciler.api.meta import DNS_SUBDOMAIN
from reconciler.api.script import Place
from reconciler.cli import options, terminal
from reconciler.cli.options import AllowNamespaces
from reconciler.cli.terminal import ExitCode
from reconciler.cli.validating import text
from reconciler.core.admission import Scope
from reconciler.core.objects import JsonObject, ObjectKey

_HERE: Final = Path()
# Where deploy/base serves it.
IN_CLUSTER: Final = "http://scriptops-controller.scriptops-system:8000"
# What a reader of YAML 1.1, as kubectl and Argo CD are, takes for text without quotes.
_PLAIN: Final = re.compile(r"[A-Za-z_/][-A-Za-z0-9_./@:]*[-A-Za-z0-9_./]")


class Kind(StrEnum):
    SCRIPT = "Script"
    DEVICE = "Device"
    DEVICE_MODEL = "DeviceModel"


class Form(StrEnum):
    YAML = "yaml"
    JSON = "json"


def _name(value: str) -> str:
    if len(value) > 253 or not re.fullmatch(DNS_SUBDOMAIN, value):
        raise typer.BadParameter(f"{value!r} is not the name of a ScriptRepository")
    return value


def _url(value: str) -> str:
    try:
        return TypeAdapter(Place).validate_python(value)
    except ValidationError:
        raise typer.BadParameter(f"{value!r} is not http[s]://host[:port]") from None


def render(
    path: Annotated[
        Path, typer.Argument(metavar="[PATH]", help="A repository, or a folder in one.")
    ] = _HERE,
    *,
    repository: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            envvar="SCRIPTOPS_REPOSITORY",
            callback=_name,
            help="The ScriptRepository, with apply: None, that publishes the scripts.",
        ),
    ],
    controller: Annotated[
        str,
        typer.Option(
            "--registry",
            metavar="URL",
            callback=_url,
            help="Web address of the controller whose registry the Scripts name.",
        ),
    ] = IN_CLUSTER,
    kind: Annotated[
        list[Kind],
        typer.Option(
            "--kind",
            metavar="|".join(Kind),
            help="Print only objects of this kind. May be repeated.",
        ),
    ] = [],  # noqa: B006 - typer's spelling of "none given"
    output: Annotated[
        Form, typer.Option("--output", "-o", metavar="yaml|json", help="How to print it.")
    ] = Form.YAML,
    namespace: options.Namespace = "default",
    allow_namespace: AllowNamespaces = [],  # noqa: B006 - typer's spelling of "none given"
    cluster_name: options.ForCluster = "",
) -> None:
    """Print the manifests of a repository with register and digest filled in.

    For Argo CD, Flux or kubectl to apply. All of them, or none: with anything wrong in the
    repository, or nothing in it, it prints nothing, says why, and exits with 1, so that nobody
    prunes what is only missing by mistake. --namespace is that of the ScriptRepository, and of
    objects that name none.
    """
    from reconciler.main import rendering  # noqa: PLC0415 - only the verbs that read all pay for it

    scope = Scope(
        namespace=namespace,
        namespaces=frozenset({namespace, *allow_namespace}),
        cluster=cluster_name,
    )
    rendered = rendering.render(
        worktree.read(worktree.root_of(path)),
        scope,
        controller=controller,
        repository=ObjectKey(namespace, repository),
    )
    for problem in rendered.problems:
        if problem.severity != "note":
            terminal.line(text(problem), stderr=True)
    if not rendered.is_good:
        raise typer.Exit(ExitCode.FINDINGS)
    documents = [it for it in rendered.documents if not kind or it["kind"] in kind]
    if not documents:
        what = " or ".join(kind) or "object"
        terminal.line(f"there is no {what} in the manifests, so nothing is printed", stderr=True)
        raise typer.Exit(ExitCode.FINDINGS)
    if output is Form.JSON:
        terminal.as_json({"apiVersion": "v1", "kind": "List", "items": documents})
    else:
        typer.echo(as_yaml(documents), nl=False)


class _Dumper(yaml.SafeDumper):
    """Quotes what anybody could take for something else than text, such as 1e3 or y."""

    def represent_text(self, value: str) -> yaml.Node:
        is_plain = _PLAIN.fullmatch(value) is not None
        return self.represent_scalar(
            "tag:yaml.org,2002:str", value, style=None if is_plain else '"'
        )


_Dumper.add_representer(str, _Dumper.represent_text)


def as_yaml(documents: Sequence[JsonObject]) -> str:
    """One stream that YAML 1.1 and 1.2 read alike."""
    return yaml.dump_all(
        documents,
        Dumper=_Dumper,
        sort_keys=False,
        explicit_start=True,
        default_flow_style=False,
        allow_unicode=True,
        width=1_000,
    )
