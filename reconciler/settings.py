"""What a controller is told at its start: addresses, cluster, folders and permissions.

Read once, checked at once, frozen afterwards; whoever needs a setting is handed it. Nothing else
in the program reads flags or the environment for these.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from reconciler.api.meta import DNS_LABEL, Namespace
from reconciler.api.script import Place
from reconciler.core import chains
from reconciler.core.leases import USUAL
from reconciler.core.pacing import REQUESTS

_PORT = re.compile(r"[0-9]{1,5}")
_HOST = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9.]{0,251}[A-Za-z0-9])?")
# Where runs of anything else than a name's characters become one dash.
_NOT_NAME = re.compile(r"[^a-z0-9]+")
# The name of a data folder is one part of a path; longer ones are cut and told apart by hash.
_LONGEST_NAME = 40


class Address(NamedTuple):
    """A host and a port to listen on or to connect to. Port 0 asks for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than localhost is not trusted."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """`host:port`, `[ipv6]:port` or `:port` (all interfaces).

    Raises ValueError with a sentence that says what to write instead.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port):
        raise ValueError(f"{text!r} is not an address; write it as host:port, like 127.0.0.1:8001")
    if int(port) > 65_535:
        raise ValueError(f"{text!r} has port {port}; ports end at 65535")
    if not host:
        return Address("0.0.0.0", int(port))  # noqa: S104 - what a bare ":port" means everywhere
    if host.startswith("[") and host.endswith("]"):
        try:
            return Address(str(ipaddress.IPv6Address(host[1:-1])), int(port))
        except ValueError:
            raise ValueError(f"{text!r} has no IPv6 address between its brackets") from None
    if ":" in host:
        raise ValueError(f"{text!r} is ambiguous; write an IPv6 address as [::1]:8001")
    if not _HOST.fullmatch(host):
        raise ValueError(f"{text!r} has no host name or IP address before its port")
    return Address(host, int(port))


def _address(value: object) -> object:
    return parse_address(value) if isinstance(value, str) else value


AddressField = Annotated[Address, BeforeValidator(_address)]


class ClusterKind(StrEnum):
    EMBEDDED = "embedded"
    KUBERNETES = "kubernetes"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


DEFAULT_GRPC = Address("0.0.0.0", 8001)  # noqa: S104 - executors come from other machines
DEFAULT_MQTT = Address("127.0.0.1", 1883)
# Enough to hold the run that somebody asks about; 1,000 Scripts are about 12 MB on disk.
DEFAULT_RECORDINGS = 20
MOST_RECORDINGS = 10_000
# A replica that leads them all writes as many leases every two seconds.
MOST_SHARDS = 64
DEFAULT_WEB = Address("0.0.0.0", 8000)  # noqa: S104 - what is not public is served to loopback only


# Tokens of a cluster are made for somebody; those for others are refused.
DEFAULT_AUDIENCE = "scriptops"


class ListenTls(BaseModel):
    """PEM files of the address for executors: our chain, its key, and who signs executors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cert: Path
    key: Path
    client_ca: Path


class WebTls(BaseModel):
    """PEM files of the web address: its chain and its key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cert: Path
    key: Path


class Settings(BaseModel):
    """Everything a controller is told. `data` need not exist yet; its parents neither.

    `git_urls` are patterns of the addresses of repositories that are allowed; without any all are,
    but with Kubernetes none that are on this machine.
    `registers` are the hosts (`host` or `host:port`) from which artifacts may be fetched; none by
    default. `register_config` has credentials for those that are OCI registries, as docker login
    writes them; with `register_keys` only what one of them signed there is taken. `network` are
    places that scripts of a local executor may fetch from, where their
    manifests name them too. `cluster_name` names the branch of status commits,
    `scriptops-status/<cluster_name>`. `dev` lets the bytes of a version change. `audience`
    is whom tokens of a Kubernetes cluster must be made for. `public_registry` serves artifacts
    to who has no token. `tls` is for executors, `web_tls` for everybody else. `insecure_listen`
    serves reads, debug and triggers to who has no token, and takes executors of other machines
    without TLS.
    `secrets` is a folder of Secrets for the embedded cluster, as Kubernetes mounts them, and
    `age_identity` a file with the keys for ciphertext of repositories that name none of their own.
    `grants` is a file that says what repositories may write besides their own namespace; without
    one they may in the embedded cluster write what their ScriptRepository says.
    `mqtt_config` is a file that says how to be let in by the broker at `mqtt`.
    `chain_depth` is how many runs that set each other off a run may follow, `chain_runs` how many
    of one such chain may be in a minute.
    `audit` writes runs and commits of statuses to a log as text, too.
    `nats` is the URL of a NATS server with JetStream that keeps, on `nats_copies` servers, what
    controllers that share the work keep together; `nats_credentials` lets them in.
    `leases` is the namespace of a Kubernetes cluster where controllers that share the work say who
    leads which of `shards`, the same for all of them; a leader that is gone is replaced after
    `lease_seconds`, and `advertise` is the URL by which the others reach our web address.
    `recordings` are runs of each Script that can be replayed; 0 records none. `kube_api_qps` and
    `kube_api_burst` bound what is asked of the API server, watches apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    grpc: AddressField = DEFAULT_GRPC
    mqtt: AddressField | None = DEFAULT_MQTT
    mqtt_config: Path | None = None
    web: AddressField = DEFAULT_WEB
    cluster: ClusterKind = ClusterKind.EMBEDDED
    cluster_name: Namespace = "default"
    kubeconfig: Path | None = None
    context: str | None = None
    kube_api_qps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = REQUESTS.per_second
    kube_api_burst: Annotated[int, Field(ge=1)] = REQUESTS.burst
    namespace: Namespace = "default"
    dev: bool = False
    audience: str = DEFAULT_AUDIENCE
    public_registry: bool = False
    tls: ListenTls | None = None
    web_tls: WebTls | None = None
    insecure_listen: bool = False
    secrets: Path | None = None
    age_identity: Path | None = None
    grants: Path | None = None
    git_urls: tuple[str, ...] = ()
    registers: frozenset[str] = frozenset()
    register_config: Path | None = None
    register_keys: tuple[Path, ...] = ()
    network: tuple[Place, ...] = ()
    nats: str | None = None
    nats_credentials: Path | None = None
    nats_copies: Annotated[int, Field(ge=1, le=5)] = 1
    leases: Namespace | None = None
    shards: Annotated[int, Field(ge=1, le=MOST_SHARDS)] = 1
    lease_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = USUAL.lease
    advertise: str | None = None
    recordings: Annotated[int, Field(ge=0, le=MOST_RECORDINGS)] = DEFAULT_RECORDINGS
    chain_depth: Annotated[int, Field(ge=1, le=1_000)] = chains.DEFAULT_LIMITS.depth
    chain_runs: Annotated[int, Field(ge=1, le=1_000_000)] = chains.DEFAULT_LIMITS.runs
    log_format: LogFormat = LogFormat.TEXT
    audit: bool = False
    log_level: LogLevel = LogLevel.INFO


def data_folder(name: str, environ: Mapping[str, str]) -> Path:
    """Where the state of the instance called `name` lives: below XDG_STATE_HOME.

    The variable counts only where it is absolute, as its specification asks.
    """
    state = environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return base / "scriptops" / name


def instance_name(url: str) -> str:
    """A short folder name for a repository, the same each time, different for different ones."""
    stem = url.rstrip("/").removesuffix(".git").rstrip("/").rpartition("/")[2].lower()
    name = _NOT_NAME.sub("-", stem).strip("-")[:_LONGEST_NAME].strip("-")
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    return f"{name}-{digest}" if name else digest


def repository_name(url: str) -> str:
    """A ScriptRepository name for a URL: its last part, in the characters Kubernetes allows."""
    stem = url.rstrip("/").removesuffix(".git").rstrip("/").rpartition("/")[2].lower()
    name = _NOT_NAME.sub("-", stem).strip("-")[:_LONGEST_NAME].strip("-")
    return name if re.fullmatch(DNS_LABEL, name) else "repository"
