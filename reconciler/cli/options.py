"""Options that more than one verb takes, so that they mean the same everywhere."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from reconciler.api.meta import DNS_LABEL
from reconciler.api.script import Place
from reconciler.settings import (
    MOST_RECORDINGS,
    MOST_SHARDS,
    ClusterKind,
    LogFormat,
    LogLevel,
    parse_address,
)


class TableOutput(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class TextOutput(StrEnum):
    TEXT = "text"
    JSON = "json"


def _address(value: str) -> str:
    try:
        return str(parse_address(value)) if value else value
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _places(values: list[str]) -> list[str]:
    for value in values:
        try:
            TypeAdapter(Place).validate_python(value)
        except ValidationError:
            raise typer.BadParameter(
                f"{value!r} is not a place; write https://host[:port][/path-prefix]"
            ) from None
    return values


def _namespace(value: str) -> str:
    if not re.fullmatch(DNS_LABEL, value) or len(value) > 63:
        raise typer.BadParameter(f"{value!r} is not a namespace: lower case letters, digits, -")
    return value


def _token(value: str) -> str:
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{value[1:]} cannot be read: {error}") from None


Controller = Annotated[
    str,
    typer.Option(
        envvar="SCRIPTOPS_CONTROLLER", metavar="URL", help="Web address of the controller."
    ),
]
CONTROLLER = "http://127.0.0.1:8000"

Namespace = Annotated[
    str,
    typer.Option(
        "--namespace", "-n", metavar="NAME", callback=_namespace, help="Namespace to work in."
    ),
]
AllNamespaces = Annotated[
    bool, typer.Option("--all-namespaces", "-A", help="Objects of every namespace.")
]
Grpc = Annotated[
    str,
    typer.Option("--grpc", "-g", callback=_address, metavar="HOST:PORT", help="For executors."),
]
Mqtt = Annotated[
    str,
    typer.Option(
        "--mqtt", "-m", callback=_address, metavar="HOST:PORT", help="Broker of KubeEdge's topics."
    ),
]
MqttConfig = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="YAML: username, password or passwordFile, tls, version and clientId for the broker.",
        exists=True,
        dir_okay=False,
    ),
]
Web = Annotated[
    str,
    typer.Option(
        "--web",
        "-w",
        callback=_address,
        metavar="HOST:PORT",
        help="API, webhook, registry, metrics.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where state is kept. Default: below $XDG_STATE_HOME/scriptops.",
        file_okay=False,
    ),
]
Cluster = Annotated[
    ClusterKind,
    typer.Option(
        metavar="embedded|kubernetes", help="Where objects live: in this process or in Kubernetes."
    ),
]
ClusterName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        callback=_namespace,
        help="What repositories call this cluster; status commits go to scriptops-status/NAME.",
    ),
]
ForCluster = Annotated[
    str,
    typer.Option(
        "--cluster-name",
        metavar="NAME",
        help="For which of the clusters that scriptops.yaml names, where it names any.",
    ),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="As kubectl's; default $KUBECONFIG, ~/.kube/config, in-cluster."
    ),
]
KubeContext = Annotated[
    str | None, typer.Option("--context", metavar="NAME", help="Context of the kubeconfig.")
]
KubeApiQps = Annotated[
    float,
    typer.Option(
        min=0.1, metavar="NUMBER", help="Requests a second to the API server, on the long run."
    ),
]
KubeApiBurst = Annotated[
    int,
    typer.Option(min=1, metavar="NUMBER", help="Requests to the API server at once after a pause."),
]
Secrets = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Secrets of the embedded cluster: a folder each, and in it a file for each key.",
        exists=True,
        file_okay=False,
    ),
]
AgeIdentity = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Private keys, as age-keygen writes them, for envFrom.*.age of Scripts.",
        exists=True,
        dir_okay=False,
    ),
]
Grants = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="What repositories may write besides their own namespace; see docs/many-teams.md.",
        exists=True,
        dir_okay=False,
    ),
]
Dev = Annotated[
    bool, typer.Option("--dev", help="A version may change its bytes; the change is redeployed.")
]
InsecureListen = Annotated[
    bool,
    typer.Option(
        "--insecure-listen",
        help="Ask nobody for a token to read, debug or trigger, nor executors for a certificate.",
    ),
]
Audience = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Whom tokens of a Kubernetes cluster must be made for.",
    ),
]
PublicRegistry = Annotated[
    bool,
    typer.Option("--public-registry", help="Serve published scripts to who has no token, too."),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Certificate for executors (PEM, with its chain); goes with the two below.",
        exists=True,
        dir_okay=False,
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Its private key (PEM).", exists=True, dir_okay=False),
]
WebTlsCert = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Certificate of the web address (PEM, with its chain); goes with its key.",
        exists=True,
        dir_okay=False,
    ),
]
ClientCa = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Who signs the certificates of executors (PEM).",
        exists=True,
        dir_okay=False,
    ),
]
Token = Annotated[
    str,
    typer.Option(
        envvar="SCRIPTOPS_TOKEN",
        metavar="TOKEN|@FILE",
        callback=_token,
        help="Who you are, where the controller asks; with @ the file that holds it.",
    ),
]
GitUrls = Annotated[
    list[str],
    typer.Option(
        "--git-url",
        metavar="PATTERN",
        help=(
            "Addresses of repositories that are allowed, `*` for any characters, as in "
            "`https://git.example.org/*`. May be repeated. Without it all are, but on Kubernetes "
            "none on the controller's own machine."
        ),
    ),
]
Registers = Annotated[
    list[str],
    typer.Option(
        "--allow-register",
        metavar="HOST[:PORT]",
        help="A register from which artifacts may be fetched. May be repeated.",
    ),
]
RegisterConfig = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Credentials of OCI registries, as docker login writes them (.dockerconfigjson).",
        exists=True,
        dir_okay=False,
    ),
]
RegisterKeys = Annotated[
    list[Path],
    typer.Option(
        "--register-key",
        metavar="FILE",
        help="A cosign.pub: of registers only what one of these signed is run. May be repeated.",
        exists=True,
        dir_okay=False,
    ),
]
Network = Annotated[
    list[str],
    typer.Option(
        "--network-allow",
        metavar="PLACE",
        callback=_places,
        help=(
            "Where scripts may fetch from if their manifest names it too, as "
            "https://host[:port][/path-prefix]. May be repeated."
        ),
    ),
]
Recordings = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        max=MOST_RECORDINGS,
        help="Runs of each Script that are kept for scriptops replay; 0 keeps none.",
    ),
]
Nats = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Keep runs, and what Scripts remember, in this NATS server with JetStream.",
    ),
]
NatsCredentials = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Who we are there, as nsc writes it.")
]
NatsCopies = Annotated[
    int,
    typer.Option(metavar="N", min=1, max=5, help="Servers of the NATS cluster that keep it."),
]
Leases = Annotated[
    str | None,
    typer.Option(
        metavar="NAMESPACE",
        help="Share the work with the other controllers that keep Leases in this namespace.",
    ),
]
Shards = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        max=MOST_SHARDS,
        help="Parts that the work is shared in, by namespace; the same for all of them.",
    ),
]
LeaseSeconds = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=1, help="After so long another does the work of one that is gone."
    ),
]
Advertise = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where the others reach our --web address, like http://10.0.0.7:8000.",
    ),
]
ChainDepth = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, help="How many runs that set each other off a run may follow."
    ),
]
ChainRuns = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, help="How many runs that set each other off may be in a minute."
    ),
]
AuditOption = Annotated[
    bool,
    typer.Option(
        "--audit",
        help="Write each run and each commit of statuses to the log as text, too; JSON has them.",
    ),
]
LogFormatOption = Annotated[
    LogFormat, typer.Option(metavar="text|json", help="How log lines are written to stderr.")
]
LogLevelOption = Annotated[
    LogLevel,
    typer.Option(metavar="debug|info|warning|error", help="Least level that is logged."),
]
Output = Annotated[
    TextOutput, typer.Option("--output", "-o", metavar="text|json", help="How to print it.")
]
AllowNamespaces = Annotated[
    list[str],
    typer.Option(
        "--allow-namespace",
        metavar="NAME",
        help="Another namespace that manifests may name. May be repeated.",
    ),
]
