"""The git program as a child process that always ends.

Transport is the program's and not the library's because a process can be killed: a server that
sends one byte a second keeps any timeout per read alive for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What a person reads of an answer is a few lines; a hook or server may print without end.
MAX_OUTPUT_BYTES = 64 * 1024
# A killed group lets go of its pipes at once; this only bounds a kernel that is stuck on a disk.
_GRACE_SECONDS = 2.0

# The shell sets the limit on files before git starts, and with it for all of git's own children.
_LIMITED = 'ulimit -f "$0" && exec git "$@"'

# Of our own environment a child needs the way to its programs and out of the network, no more.
_INHERITED = (
    "PATH",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call said. `code` is negative where a signal ended it."""

    code: int
    stdout: str
    stderr: str

    @property
    def is_too_large(self) -> bool:
        """Whether git, or a child of it, met the limit on the size of a file."""
        return (
            self.code == -signal.SIGXFSZ or f"died of signal {int(signal.SIGXFSZ)}" in self.stderr
        )


def isolated(config: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """An environment in which no file of a user or system configures git.

    `config` travels in variables, so that nothing of it is seen in a list of processes.
    """
    return {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_CONFIG_COUNT": str(len(config)),
        **{f"GIT_CONFIG_KEY_{n}": key for n, key in enumerate(config)},
        **{f"GIT_CONFIG_VALUE_{n}": value for n, value in enumerate(config.values())},
        **extra,
    }


async def run(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    file_limit: int,
    inherit: Sequence[int] = (),
) -> Answer:
    """Run git to its end; when cancelled, kill it and all its children, and only then return.

    No file it writes grows beyond `file_limit` bytes. Output beyond `MAX_OUTPUT_BYTES` is read
    and dropped. The descriptors in `inherit` stay open for as long as one of the children lives.
    """
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        _LIMITED,
        str(-(-file_limit // 512)),
        *arguments,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        pass_fds=inherit,
    )
    readers = [
        asyncio.ensure_future(_read(stream))
        for stream in (process.stdout, process.stderr)
        if stream is not None
    ]
    try:
        stdout, stderr = await asyncio.gather(*(asyncio.shield(reader) for reader in readers))
        code = await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.wait(
            [*readers, asyncio.ensure_future(process.wait())], timeout=_GRACE_SECONDS
        )
        raise
    return Answer(code, stdout, stderr)


async def _read(stream: asyncio.StreamReader) -> str:
    kept = bytearray()
    while chunk := await stream.read(MAX_OUTPUT_BYTES):
        kept += chunk[: MAX_OUTPUT_BYTES - len(kept)]
    return kept.decode("utf-8", "replace")
