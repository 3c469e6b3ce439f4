"""`demo`, `up`, `controller` and `executor`: verbs that stay until they are told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from itertools import takewhile
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from reconciler.adapters import usergit
from reconciler.api.meta import SecretRef
from reconciler.api.scriptrepository import PushWebhook, ScriptRepositorySpec
from reconciler.api.verification import Verification
from reconciler.cli import options, terminal
from reconciler.cli.narrate import Narrator
from reconciler.cli.terminal import ExitCode
from reconciler.core import chains
from reconciler.core.leases import USUAL
from reconciler.core.pacing import REQUESTS
from reconciler.ports.git import Remote
from reconciler.settings import (
    DEFAULT_AUDIENCE,
    DEFAULT_GRPC,
    DEFAULT_MQTT,
    DEFAULT_RECORDINGS,
    DEFAULT_WEB,
    ClusterKind,
    ListenTls,
    LogFormat,
    LogLevel,
    Settings,
    WebTls,
    data_folder,
    instance_name,
    parse_address,
    repository_name,
)

T = TypeVar("T")

_LOOPBACK_GRPC = "127.0.0.1:8001"
_LOOPBACK_WEB = "127.0.0.1:8000"
_ANY_PORT = "127.0.0.1:0"


def demo(
    *,
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="One round, then stop; exit with 0 only if all of it happened."
        ),
    ] = False,
    output: Annotated[
        options.TextOutput,
        typer.Option("--output", "-o", metavar="text|json", help="How the summary is printed."),
    ] = options.TextOutput.TEXT,
    grpc: options.Grpc = "",
    mqtt: options.Mqtt = str(DEFAULT_MQTT),
    web: options.Web = "",
    data: options.Data = None,
    log_level: options.LogLevelOption = LogLevel.WARNING,
) -> None:
    """Show it all at work: a repository, devices, rules, and what a push does.

    Everything runs on this machine and listens on loopback only. A repository is made from the
    template, with a clone to edit in. It stays up to be played with; the data folder is made anew
    at each start. With --once any free ports are taken, and a data folder of its own.
    """
    from reconciler import main  # noqa: PLC0415 - only the verbs that serve pay for what serves

    settings = Settings(
        data=data or data_folder("demo-once" if once else "demo", os.environ),
        grpc=grpc or (_ANY_PORT if once else _LOOPBACK_GRPC),
        mqtt=mqtt or None,
        web=web or (_ANY_PORT if once else _LOOPBACK_WEB),
        dev=True,
        log_level=log_level,
    )
    _require_loopback(settings)
    happened = _serve(main.demo(settings, Narrator(output), once=once))
    if once and not happened:
        raise typer.Exit(ExitCode.ERROR if happened is None else ExitCode.FINDINGS)


def up(
    repository: Annotated[str, typer.Argument(metavar="GIT-URL-OR-PATH", help="What to deploy.")],
    *,
    ref: Annotated[
        str | None,
        typer.Option(
            metavar="BRANCH", help="Branch. Default: the current one of a path, main of a URL."
        ),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Folder in it that holds manifests/ and scripts/."),
    ] = None,
    interval: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="How often a URL is looked at; a path is watched besides."
        ),
    ] = "10s",
    namespace: options.Namespace = "default",
    grpc: options.Grpc = _LOOPBACK_GRPC,
    mqtt: options.Mqtt = str(DEFAULT_MQTT),
    mqtt_config: options.MqttConfig = None,
    web: options.Web = _LOOPBACK_WEB,
    data: options.Data = None,
    cluster_name: options.ClusterName = "default",
    secrets: options.Secrets = None,
    age_identity: options.AgeIdentity = None,
    dev: options.Dev = False,
    allow_register: options.Registers = [],  # noqa: B006 - typer's spelling of "none given"
    register_config: options.RegisterConfig = None,
    register_key: options.RegisterKeys = [],  # noqa: B006 - as above
    network_allow: options.Network = [],  # noqa: B006 - typer's spelling of "none given"
    recordings: options.Recordings = DEFAULT_RECORDINGS,
    chain_depth: options.ChainDepth = chains.DEFAULT_LIMITS.depth,
    chain_runs: options.ChainRuns = chains.DEFAULT_LIMITS.runs,
    log_format: options.LogFormatOption = LogFormat.TEXT,
    audit: options.AuditOption = False,
    log_level: options.LogLevelOption = LogLevel.INFO,
) -> None:
    """Deploy a repository on this machine: controller, executor and simulated devices in one.

    Listens on loopback only. A path implies --dev: editing a script in place is enough. Of
    --secrets, `git` are the credentials of a URL, `push` lets push webhooks in, and `signers` are
    the keys without whose signature no commit is deployed.
    """
    from reconciler import main  # noqa: PLC0415 - only the verbs that serve pay for what serves

    narrator = Narrator()
    from reconciler.adapters.git import address  # noqa: PLC0415 - what speaks to servers is not small

    where = address.parse(Remote(repository))
    url, branch, folder = repository, ref or "main", path or ""
    if where.path is not None:
        url, branch, folder = _local(where.path, ref, path)
        _tell_uncommitted(narrator, Path(url))
    settings = Settings(
        data=data or data_folder(instance_name(where.url), os.environ),
        grpc=grpc,
        mqtt=mqtt or None,
        mqtt_config=mqtt_config,
        web=web,
        cluster_name=cluster_name,
        namespace=namespace,
        secrets=secrets,
        age_identity=age_identity,
        dev=dev or where.path is not None,
        registers=frozenset(allow_register),
        register_config=register_config,
        register_keys=tuple(register_key),
        network=tuple(network_allow),
        recordings=recordings,
        chain_depth=chain_depth,
        chain_runs=chain_runs,
        log_format=log_format,
        audit=audit,
        log_level=log_level,
    )
    try:
        spec = ScriptRepositorySpec(
            url=url,
            ref=branch,
            path=folder,
            interval=interval,
            results_interval="5s",
            credentials=_secret(secrets, "git"),
            webhook=PushWebhook(secret_ref=push) if (push := _secret(secrets, "push")) else None,
            verify=Verification(secret_ref=signers)
            if (signers := _secret(secrets, "signers"))
            else None,
        )
    except ValueError as error:
        raise terminal.fail(f"{repository}: {error}") from None
    _require_loopback(settings)
    _serve(main.up(settings, repository_name(where.url), spec, narrator))


def controller(
    *,
    grpc: options.Grpc = str(DEFAULT_GRPC),
    mqtt: options.Mqtt = str(DEFAULT_MQTT),
    mqtt_config: options.MqttConfig = None,
    web: options.Web = str(DEFAULT_WEB),
    cluster: options.Cluster = ClusterKind.EMBEDDED,
    cluster_name: options.ClusterName = "default",
    kubeconfig: options.Kubeconfig = None,
    context: options.KubeContext = None,
    kube_api_qps: options.KubeApiQps = REQUESTS.per_second,
    kube_api_burst: options.KubeApiBurst = REQUESTS.burst,
    namespace: options.Namespace = "default",
    data: options.Data = None,
    secrets: options.Secrets = None,
    age_identity: options.AgeIdentity = None,
    grants: options.Grants = None,
    dev: options.Dev = False,
    audience: options.Audience = DEFAULT_AUDIENCE,
    public_registry: options.PublicRegistry = False,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    client_ca: options.ClientCa = None,
    web_tls_cert: options.WebTlsCert = None,
    web_tls_key: options.TlsKey = None,
    insecure_listen: options.InsecureListen = False,
    git_url: options.GitUrls = [],  # noqa: B006 - typer's spelling of "none given"
    allow_register: options.Registers = [],  # noqa: B006 - typer's spelling of "none given"
    register_config: options.RegisterConfig = None,
    register_key: options.RegisterKeys = [],  # noqa: B006 - as above
    nats: options.Nats = None,
    nats_credentials: options.NatsCredentials = None,
    nats_copies: options.NatsCopies = 1,
    leases: options.Leases = None,
    shards: options.Shards = 1,
    lease_seconds: options.LeaseSeconds = USUAL.lease,
    advertise: options.Advertise = None,
    recordings: options.Recordings = DEFAULT_RECORDINGS,
    chain_depth: options.ChainDepth = chains.DEFAULT_LIMITS.depth,
    chain_runs: options.ChainRuns = chains.DEFAULT_LIMITS.runs,
    log_format: options.LogFormatOption = LogFormat.TEXT,
    audit: options.AuditOption = False,
    log_level: options.LogLevelOption = LogLevel.INFO,
) -> None:
    """Run a controller for the ScriptRepositories of a cluster.

    Executors connect to --grpc, from other machines with a certificate that --client-ca signed. At
    --web everybody needs a token, unless only this machine reaches it (a loopback address).
    """
    from reconciler import main  # noqa: PLC0415 - only the verbs that serve pay for what serves

    settings = Settings(
        data=data or data_folder("controller", os.environ),
        grpc=grpc,
        mqtt=mqtt or None,
        mqtt_config=mqtt_config,
        web=web,
        cluster=cluster,
        cluster_name=cluster_name,
        kubeconfig=kubeconfig,
        context=context,
        kube_api_qps=kube_api_qps,
        kube_api_burst=kube_api_burst,
        namespace=namespace,
        secrets=secrets,
        age_identity=age_identity,
        grants=grants,
        dev=dev,
        audience=audience,
        public_registry=public_registry,
        tls=_tls(tls_cert, tls_key, client_ca),
        web_tls=_web_tls(web_tls_cert, web_tls_key),
        insecure_listen=insecure_listen,
        git_urls=tuple(git_url),
        registers=frozenset(allow_register),
        register_config=register_config,
        register_keys=tuple(register_key),
        nats=nats,
        nats_credentials=nats_credentials,
        nats_copies=nats_copies,
        leases=leases,
        shards=shards,
        lease_seconds=lease_seconds,
        advertise=advertise,
        recordings=recordings,
        chain_depth=chain_depth,
        chain_runs=chain_runs,
        log_format=log_format,
        audit=audit,
        log_level=log_level,
    )
    _serve(main.controller(settings))


def executor(
    context: typer.Context,
    controllers: Annotated[
        list[str],
        typer.Argument(
            metavar="HOST:PORT...",
            help="The controller's --grpc address; of several that share the work, each of them, "
            "or one name that has the addresses of all.",
        ),
    ],
) -> None:
    """Run an executor: it takes runs from controllers and works them off in sandboxes.

    Further options are handed on; see scriptops executor HOST:PORT -- --help.
    """
    addresses = [*takewhile(lambda word: not word.startswith("-"), controllers)]
    try:
        for address in addresses:
            parse_address(address)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    # Another program of the same installation: it shares nothing with this one but the wire.
    command = [sys.executable, "-m", "executor", *controllers, *context.args]
    os.execv(sys.executable, command)  # noqa: S606 - a list, and no shell


def simulate(
    scenario: Annotated[
        Path, typer.Argument(metavar="FILE", help="Scenario: which devices there are.")
    ],
    *,
    mqtt: options.Mqtt = str(DEFAULT_MQTT),
    mqtt_config: options.MqttConfig = None,
    cluster: options.Cluster = ClusterKind.EMBEDDED,
    kubeconfig: options.Kubeconfig = None,
    context: options.KubeContext = None,
) -> None:
    """Be the mappers of many devices at a broker, as KubeEdge's are, until stopped.

    The Devices themselves come from a repository; a controller with the same broker drives them.
    With --cluster kubernetes KubeEdge is played as well, its defects included: no broker is asked.
    """
    from reconciler import main  # noqa: PLC0415 - only the verbs that serve pay for what serves

    if cluster is ClusterKind.KUBERNETES:
        Narrator().note(f"{scenario} is simulated in the cluster until this is stopped")
        _serve(main.emulate(scenario, kubeconfig, context))
        return
    if not mqtt:
        raise typer.BadParameter("--mqtt names the broker to be at")
    Narrator().note(f"{scenario} is simulated at {mqtt} until this is stopped")
    _serve(main.simulate(scenario, parse_address(mqtt), mqtt_config))


def doctor(context: typer.Context) -> None:
    """Say which layers of the sandbox this machine has, and what the others need.

    Exits with 1 when a layer is missing without which an executor refuses to run scripts. Options
    are handed on; see scriptops doctor -- --help.
    """
    command = [sys.executable, "-m", "executor", "doctor", *context.args]
    os.execv(sys.executable, command)  # noqa: S606 - a list, and no shell


def _tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> ListenTls | None:
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None or client_ca is None:
        raise typer.BadParameter("--tls-cert, --tls-key and --client-ca go together")
    return ListenTls(cert=cert, key=key, client_ca=client_ca)


def _web_tls(cert: Path | None, key: Path | None) -> WebTls | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise typer.BadParameter("--web-tls-cert and --web-tls-key go together")
    return WebTls(cert=cert, key=key)


def _secret(folder: Path | None, name: str) -> SecretRef | None:
    """The Secret of that name, where `folder` has it."""
    return SecretRef(name=name) if folder is not None and (folder / name).is_dir() else None


def _require_loopback(settings: Settings) -> None:
    """Anybody who reaches these may trigger runs and, as an executor, answer for them."""
    for listened in (settings.grpc, settings.web):
        if not listened.is_loopback:
            raise terminal.fail(
                f"{listened} can be reached from other machines; this verb listens on loopback "
                "only, scriptops controller on what it is told"
            )


def _local(folder: Path, ref: str | None, path: str | None) -> tuple[str, str, str]:
    """The repository that a folder is in: its path, the branch and the folder inside it."""
    if not folder.is_dir():
        raise terminal.fail(f"there is no folder {folder}; scriptops init makes a repository")
    if usergit.run(folder, "rev-parse", "--is-inside-work-tree").strip() != "true":
        root, inside = usergit.run(folder, "rev-parse", "--absolute-git-dir").strip(), ""
    else:
        root = usergit.run(folder, "rev-parse", "--show-toplevel").removesuffix("\n")
        inside = usergit.run(folder, "rev-parse", "--show-prefix").removesuffix("\n").strip("/")
    branch = ref or usergit.run(folder, "symbolic-ref", "--short", "HEAD").strip()
    return root, branch, inside if path is None else path


def _tell_uncommitted(narrator: Narrator, root: Path) -> None:
    paths = usergit.uncommitted(root)
    if paths:
        shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        narrator.note(f"not committed, so not deployed: {shown}; commit to deploy")


def _serve(work: Coroutine[object, object, T]) -> T | None:
    """Run until done or told to stop by SIGINT or SIGTERM, when the work is cancelled: None."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_until_stopped(work))


async def _until_stopped(work: Coroutine[object, object, T]) -> T | None:
    task = asyncio.ensure_future(work)
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if stopped.is_set():
            return None
        raise


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - where there is one
    except ImportError:
        return None
    return uvloop.Loop
