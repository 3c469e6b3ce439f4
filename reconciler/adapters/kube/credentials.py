"""Which cluster, and as whom: kubectl's rules."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from reconciler.adapters.kube.cluster import WATCH_GRACE, KubeCluster
from reconciler.adapters.kube.transport import Transport
from reconciler.core.pacing import REQUESTS, Rate
from reconciler.errors import Stalled

# A credential plugin that hangs must not hang us.
LOAD_SECONDS = 30.0
# Tokens are read again at most this often: projected tokens are renewed about ten minutes before
# they end, plugins say themselves when theirs do.
REFRESH_SECONDS = 60.0
# The client's loader stumbles over odd files with whatever Python raises.
LOADER_ERRORS = (
    *(config.ConfigException, yaml.YAMLError, OSError, ValueError),
    *(LookupError, TypeError, AttributeError),
)

log = logging.getLogger(__name__)


async def connect(
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    rate: Rate = REQUESTS,
    watch_grace: timedelta = WATCH_GRACE,
) -> KubeCluster:
    """The cluster that kubectl would talk to with the same arguments and environment.

    `kubeconfig`, else every file of `KUBECONFIG`, else `~/.kube/config`, else the service account
    of the pod we run in. Nothing is sent yet. Raises `Stalled` with reason `KubeconfigInvalid`.
    """
    configuration = Configuration()
    files = _files(kubeconfig)
    try:
        if files or context or kubeconfig:
            await _load_files(configuration, files, context)
        else:
            config.load_incluster_config(client_configuration=configuration)
    except LOADER_ERRORS as error:
        tried = ", ".join(map(str, files)) or "no kubeconfig file and no service account"
        raise Stalled(
            f"no usable cluster credentials ({tried}): {error}", reason="KubeconfigInvalid"
        ) from error
    # The client would look into ~/.netrc, in a thread, before every request; proxies are the only
    # thing of the environment that kubectl heeds, too.
    configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
    return KubeCluster(Transport(ApiClient(configuration), rate=rate), watch_grace=watch_grace)


def _files(kubeconfig: str | None) -> Sequence[Path]:
    """The files to merge, first wins. One that was asked for is named even when it is missing."""
    if kubeconfig:
        return (Path(kubeconfig).expanduser(),)
    named = os.environ.get("KUBECONFIG", "")
    candidates = named.split(os.pathsep) if named else [str(Path.home() / ".kube" / "config")]
    paths = (Path(name).expanduser() for name in candidates if name)
    return tuple(path for path in paths if path.is_file() and path.stat().st_size)


async def _load_files(configuration: Any, files: Sequence[Path], context: str | None) -> None:
    missing = [str(path) for path in files if not path.is_file()]
    if missing or not files:
        raise FileNotFoundError(f"no such file: {', '.join(missing) or 'kubeconfig'}")
    async with asyncio.timeout(LOAD_SECONDS):
        loader = await config.load_kube_config(
            config_file=os.pathsep.join(map(str, files)),
            context=context or _current_context(files),
            client_configuration=configuration,
            persist_config=False,
        )
    loop = asyncio.get_running_loop()
    next_refresh = loop.time() + REFRESH_SECONDS

    async def refresh(configuration: Any) -> None:
        nonlocal next_refresh
        if loop.time() < next_refresh:
            return
        next_refresh = loop.time() + REFRESH_SECONDS
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                await loader.load_and_set(configuration)
        except LOADER_ERRORS as error:
            # The token at hand may still be good; where it is not, the server says so.
            log.warning("credentials not renewed", extra={"error": str(error)})

    configuration.refresh_api_key_hook = refresh


def _current_context(files: Sequence[Path]) -> str | None:
    """The first file that names one decides, as with kubectl; the loader lets the last decide."""
    for path in files:
        named = (yaml.safe_load(path.read_text()) or {}).get("current-context")
        if isinstance(named, str) and named:
            return named
    return None
