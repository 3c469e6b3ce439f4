"""The git program as a child process that always ends.

Transport is the program's and not the library's because a process can be killed: a server that
sends one byte a second keeps any timeout per read alive for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, Any

# What a person reads of an answer is a few lines; a hook or server may print without end.
MAX_OUTPUT_BYTES = 64 * 1024
# Git ends at once when it is asked to, and a killed group lets go of its pipes at once; this bounds
# who does not listen, and a kernel that is stuck on a disk.
_GRACE_SECONDS = 2.0

# Of memory, for each process. Git streams large files, and a million objects take some 100 MiB;
# but differences it builds in memory, and a few bytes of those may stand for gigabytes.
_MEMORY_KIB = 512 * 1024
# What git says then, and not the server.
_NO_MEMORY = re.compile(r"^fatal: out of memory", re.IGNORECASE | re.MULTILINE)
# Of the child that writes a pack git says only this when a limit has ended it; of whatever else may
# happen to it, that child speaks itself before.
_CUT_OFF = re.compile(
    r"\A(?!.*^(?:error|fatal): (?!fetch-pack)).*invalid index-pack output", re.DOTALL | re.MULTILINE
)

# The shell sets the limits before git starts, and with them those of all of git's own children.
# Where an operator allows less memory already, that holds.
_LIMITED = f'ulimit -d {_MEMORY_KIB} 2>/dev/null; ulimit -f "$0" && exec "$@"'

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
        """Whether git, or a child of it, met the limit on the size of a file, or on memory."""
        return (
            self.code == -signal.SIGXFSZ
            or f"died of signal {int(signal.SIGXFSZ)}" in self.stderr
            or (self.code != 0 and _CUT_OFF.search(self.stderr) is not None)
            or (self.code != 0 and _NO_MEMORY.search(self.stderr) is not None)
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
    output_limit: int = MAX_OUTPUT_BYTES,
    program: str = "git",
    given: bytes = b"",
) -> Answer:
    """Run git to its end; when cancelled, end it and all its children, and only then return.

    They are asked first, so that they take away their locks, which in a repository of this machine
    nobody else would; what has not ended within two seconds is killed.

    No file it writes grows beyond `file_limit` bytes, and no process beyond `_MEMORY_KIB`. Output
    beyond `output_limit` is read and dropped. The descriptors in `inherit` stay open for as long as
    one of the children lives. What it reads is `given`.
    """
    process = _start(
        (program, *arguments),
        environment,
        file_limit,
        inherit=inherit,
        stdin=subprocess.PIPE if given else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    readers = [
        asyncio.ensure_future(_read(pipe, output_limit))
        for pipe in (process.stdout, process.stderr)
        if pipe is not None
    ]
    try:
        if process.stdin is not None:
            await _write(process.stdin, given)
        stdout, stderr = await asyncio.gather(*(asyncio.shield(reader) for reader in readers))
        # It has closed its output; what is left of it is short.
        code = await asyncio.to_thread(process.wait)
    except BaseException:
        await _end(process, *readers)
        for reader in readers:
            reader.cancel()
        raise
    return Answer(code, stdout, stderr)


@asynccontextmanager
async def talking(
    arguments: Sequence[str], *, environment: Mapping[str, str], file_limit: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.WriteTransport]]:
    """Run git for as long as the body lasts: what it says, and what it is told.

    It is then ended with all its children. Its words for people are dropped.
    """
    process = _start(
        ("git", *arguments),
        environment,
        file_limit,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    loop = asyncio.get_running_loop()
    said = asyncio.StreamReader()
    pipes: list[asyncio.BaseTransport] = []
    try:
        hears, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, process.stdin)
        pipes.append(hears)
        says, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(said), process.stdout
        )
        pipes.append(says)
        yield said, hears
    finally:
        for pipe in pipes:
            pipe.close()
        await _end(process)


def _start(
    command: Sequence[str],
    environment: Mapping[str, str],
    file_limit: int,
    *,
    stdin: int,
    stderr: int,
    inherit: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    # Not by the event loop's own means: uvloop forks, and to fork a process of some 100 megabytes
    # takes some 10 milliseconds in which nothing else runs. This is a vfork.
    return subprocess.Popen(
        ("sh", "-c", _LIMITED, str(-(-file_limit // 512)), *command),
        env=environment,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
        start_new_session=True,
        pass_fds=inherit,
    )


async def _end(process: subprocess.Popen[bytes], *readers: asyncio.Future[str]) -> None:
    ends: set[asyncio.Future[Any]] = {
        asyncio.ensure_future(asyncio.to_thread(process.wait)),
        *readers,
    }
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        _, left = await asyncio.wait(ends, timeout=_GRACE_SECONDS)
        if not left:
            break


async def _write(pipe: IO[bytes], data: bytes) -> None:
    """Leave `data` to be written, and then the end; a program may as well not read it."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, pipe)
    transport.write(data)
    transport.close()


async def _read(pipe: IO[bytes], limit: int) -> str:
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
    kept = bytearray()
    try:
        while chunk := await stream.read(MAX_OUTPUT_BYTES):
            kept += chunk[: limit - len(kept)]
    finally:
        transport.close()
    return kept.decode("utf-8", "replace")
