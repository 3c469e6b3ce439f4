"""The layers on this machine, tried from within by code that has the whole worker in its hands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from executor.model import Isolation, Outcome
from executor.supervisor import codec
from executor.supervisor.pool import MEMORY_BYTES
from executor.supervisor.process import Process
from executor.worker import sandbox
from tests.executor.controller import Controller, serving
from tests.executor.running import Pool, activation, eventually, script

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = Path(__file__).resolve().parents[2]

# What code that has escaped from V8 would try. Each line gives the name of the error it meets.
INTRUDER = """
import ctypes, errno, json, mmap, os, socket, sys, threading
from executor.worker import sandbox

box = sandbox.Sandbox()
box.begin()
box.confine()
go = threading.Event()
answers = []
def from_an_earlier_thread():
    go.wait()
    answers.append(attempt(lambda: os.open("/etc/hostname", os.O_RDONLY)))
earlier = threading.Thread(target=from_an_earlier_thread)
earlier.start()
libc = ctypes.CDLL(None, use_errno=True)
box.seal(64 << 20)

def attempt(call):
    try:
        result = call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return errno.errorcode[ctypes.get_errno()] if result == -1 else "done"

def syscall(number, *arguments):
    return lambda: libc.syscall(number, *arguments)

tried = {
    "reads a file": lambda: os.open("/etc/hostname", os.O_RDONLY),
    "writes a file": lambda: os.open("/tmp/intruder", os.O_WRONLY | os.O_CREAT),
    "looks for a file": lambda: os.stat("/etc/hostname"),
    "lists a folder": lambda: os.listdir("/"),
    "changes its folder": lambda: os.chdir("/"),
    "opens a TCP socket": lambda: socket.socket(),
    "opens a UDP socket": lambda: socket.socket(type=socket.SOCK_DGRAM),
    "opens a UNIX socket": lambda: socket.socket(socket.AF_UNIX),
    "opens a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "makes a pair of sockets": socket.socketpair,
    "makes a pipe": os.pipe,
    "forks": os.fork,
    "starts a program": lambda: os.execv("/bin/true", ["true"]),
    "kills its parent": lambda: os.kill(os.getppid(), 0),
    "traces its parent": syscall(101, 16, os.getpid() - 1, 0, 0),
    "reads the memory of another": syscall(310, 1, 0, 0, 0, 0, 0),
    "opens a ring": syscall(425, 1, 0),
    "loads a BPF program": syscall(321, 0, 0, 0),
    "mounts": syscall(165, 0, 0, 0, 0, 0),
    "reads a key": syscall(250, 0, 0, 0, 0, 0),
    "leaves a namespace": syscall(272, 0x10000000),
    "makes a file in memory": syscall(319, b"x", 0),
    "maps shared memory": lambda: mmap.mmap(-1, 4096),
    "takes more memory than it may": lambda: mmap.mmap(-1, 2 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON),
    "takes memory that grows down": lambda: mmap.mmap(-1, 2 << 30, flags=0x100 | mmap.MAP_PRIVATE | mmap.MAP_ANON),
    "becomes root": lambda: os.setresuid(0, 0, 0),
    "gets itself a new filter": syscall(317, 1, 0, 0),
    "lives on without its parent": syscall(157, 1, 0, 0, 0, 0),
}
report = {what: attempt(call) for what, call in tried.items()}
go.set()
earlier.join()
report["reads a file in a thread started before"] = answers[0]
later = []
thread = threading.Thread(target=lambda: later.append("done"))
thread.start()
thread.join()
report["starts a thread"] = later[0]
threading.stack_size(1 << 16)
parted = threading.Event()
crowd = []
try:
    while len(crowd) < 1_000:
        thread = threading.Thread(target=parted.wait)
        thread.start()
        crowd.append(thread)
except RuntimeError:
    report["starts a crowd of threads"] = "EAGAIN"
parted.set()
for thread in crowd:
    thread.join()
print(json.dumps([box.report, report]))
"""


def threads_of(pid: int) -> set[str]:
    return {task.name for task in Path(f"/proc/{pid}/task").iterdir()}


def statuses(pid: int) -> list[list[str]]:
    """User, capabilities, no_new_privs and seccomp of every thread."""
    wanted = ("Uid:", "CapEff:", "NoNewPrivs:", "Seccomp:")
    texts = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [[x.split()[1] for x in text.splitlines() if x.startswith(wanted)] for text in texts]


def opened(pid: int) -> list[str]:
    return [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]


def environment_of(pid: int) -> list[bytes]:
    text = Path(f"/proc/{pid}/environ").read_bytes()
    return [name.split(b"=")[0] for name in text.split(b"\0") if name]


@pytest.fixture(scope="module")
def intruder() -> tuple[dict[str, Any], dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", INTRUDER],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
        timeout=60,
    )
    box, report = json.loads(done.stdout)
    return box, report


def test_an_intruder_finds_every_way_closed(
    intruder: tuple[dict[str, Any], dict[str, str]],
) -> None:
    _, report = intruder
    others = {
        "makes a file in memory": "ENOSYS",
        "takes more memory than it may": "ENOMEM",
        "starts a thread": "done",
        "starts a crowd of threads": "EAGAIN",
    }
    assert report == {what: others.get(what, "EPERM") for what in (*report, *others)}


def test_every_layer_is_told_with_what_it_took(
    intruder: tuple[dict[str, Any], dict[str, str]],
) -> None:
    box, _ = intruder
    assert {name: holds for name, (holds, _) in box.items()} == {
        layer.name: True for layer in sandbox.LAYERS if layer.name != "engines"
    }


def test_every_thread_of_a_worker_is_confined_those_of_later_isolates_too() -> None:
    async def status() -> list[list[str]]:
        process = await Process.spawn(MEMORY_BYTES)
        source = b"function main() {}"
        for number in range(3):
            asked = script(source, file=f"{number}.js", isolation=Isolation.STRICT)
            await process.ask(codec.open_frame(asked, source))
        found = statuses(process.pid)
        process.kill(Outcome.UNAVAILABLE)
        await process.ended()
        return found

    found = asyncio.run(status())
    uids = {uid for uid, *_ in found}
    assert len(found) >= 5
    assert uids.isdisjoint({"0"})
    assert [rest for _, *rest in found] == [["0000000000000000", "1", "2"]] * len(found)


def test_a_worker_has_its_socket_and_nothing_else_open() -> None:
    async def descriptors() -> list[str]:
        process = await Process.spawn(MEMORY_BYTES)
        links = opened(process.pid)
        process.kill(Outcome.UNAVAILABLE)
        await process.ended()
        return sorted(re.sub(r"\d+", "N", link) for link in links)

    with (REPOSITORY / "README.md").open("rb") as kept_open:
        os.set_inheritable(kept_open.fileno(), True)
        found = asyncio.run(descriptors())
    # The socket to the supervisor, stdout and stderr, the event loop's own, its memory to read.
    assert found == [
        "/dev/null",
        "/proc/N/statm",
        "anon_inode:[eventpoll]",
        "pipe:[N]",
        "socket:[N]",
        "socket:[N]",
        "socket:[N]",
    ]


def test_a_worker_gets_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "a secret")

    async def environment() -> list[bytes]:
        process = await Process.spawn(MEMORY_BYTES)
        names = environment_of(process.pid)
        process.kill(Outcome.UNAVAILABLE)
        await process.ended()
        return names

    assert sorted(asyncio.run(environment())) == [b"LANG", b"PYTHONPATH", b"TZ"]


# ---- a machine without a layer

# Runs what follows where the kernel seems to have no Landlock: a filter answers for it.
WITHOUT_LANDLOCK = """
import ctypes, errno, os, platform, struct, sys
from executor.worker import kernel, seccomp
lines = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50000 | errno.EOPNOTSUPP), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
kernel.control(kernel.PR_SET_NO_NEW_PRIVS, 1)
header = struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(code))
kernel.call(seccomp.MACHINES[platform.machine()].seccomp, 1, 0, header)
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
"""


def without_landlock(*arguments: str) -> list[str]:
    return [sys.executable, "-c", WITHOUT_LANDLOCK, *arguments]


def ran(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
    )


def test_doctor_finds_this_machine_fit() -> None:
    done = ran([sys.executable, "-m", "executor", "doctor", "--output", "json"])
    layers = json.loads(done.stdout)
    assert [layer["layer"] for layer in layers] == [layer.name for layer in sandbox.LAYERS]
    assert (done.returncode, [layer["layer"] for layer in layers if not layer["holds"]]) == (0, [])


def test_doctor_names_the_layer_that_is_missing_the_reason_and_the_fix() -> None:
    done = ran(without_landlock("executor", "doctor", "--output", "json"))
    [missing] = [layer for layer in json.loads(done.stdout) if not layer["holds"]]
    assert (done.returncode, missing["layer"], missing["required"], missing["detail"]) == (
        1,
        "landlock",
        True,
        "Operation not supported (ENOTSUP)",
    )
    assert "Linux 5.13 or newer" in missing["fix"]


def test_doctor_prints_a_table_for_a_person() -> None:
    done = ran(without_landlock("executor", "doctor"))
    assert done.returncode == 1
    assert "LAYER" in done.stdout
    assert "An executor refuses to run scripts here, without landlock." in done.stdout


def test_an_executor_refuses_to_run_without_a_layer() -> None:
    done = ran(without_landlock("executor", "127.0.0.1:1", "--log=plain"))
    assert done.returncode == 3
    assert (
        "no script is run here: the sandbox layer landlock is missing (Operation not supported "
        "(ENOTSUP)); it needs: Linux 5.13 or newer"
    ) in done.stderr
    assert "--insecure-no-sandbox" in done.stderr


def test_an_executor_that_was_told_to_runs_without_a_layer_and_says_so() -> None:
    async def connected() -> tuple[dict[str, str], str]:
        async with serving(Controller()) as controller:
            command = without_landlock(
                "executor", f"127.0.0.1:{controller.port}", "--log=plain", "--insecure-no-sandbox"
            )
            child = await asyncio.create_subprocess_exec(
                *command, cwd=REPOSITORY, stderr=asyncio.subprocess.PIPE
            )
            await eventually(
                lambda: any(s.hello is not None for s in controller.sessions), what="connected"
            )
            hello = controller.sessions[0].hello
            child.terminate()
            _, errors = await child.communicate()
            assert hello is not None
            return dict(hello.engines), errors.decode()

    engines, errors = asyncio.run(connected())
    assert engines["sandbox"] == "without landlock"
    assert "WARNING scripts run with less of a sandbox than they should" in errors


# ---- strict isolation


@pytest.mark.parametrize(
    ("isolation", "isolates"),
    [
        pytest.param(Isolation.SHARED, 0, id="shared runs have the isolate of the other scripts"),
        pytest.param(Isolation.STRICT, 3, id="every strict run has an isolate of its own"),
    ],
)
def test_as_every_isolate_has_a_thread(isolation: Isolation, isolates: int) -> None:
    async def isolates_seen() -> int:
        pool = Pool(workers=1)
        await pool.supervisor.start()
        other = b"function main() { /* another script */ }"
        await pool.run(other, activation())
        [slot] = pool.supervisor._slots
        assert slot._process is not None
        pid = slot._process.pid
        before = threads_of(pid)
        seen: set[str] = set()
        for _ in range(3):
            await pool.run(b"function main() {}", activation(), isolation=isolation)
            seen |= threads_of(pid)
        await pool.supervisor.close()
        return len(seen - before)

    assert asyncio.run(isolates_seen()) == isolates


def test_a_strict_script_shares_no_isolate_with_a_shared_one_of_the_same_source(
    runner: asyncio.Runner, pool: Pool
) -> None:
    source = b"let runs = 0; function main() { runs += 1; console.log(runs) }"
    results = []
    for isolation in (Isolation.SHARED, Isolation.STRICT, Isolation.SHARED, Isolation.STRICT):
        batch = [activation()] * 3
        results += runner.run(pool.run(source, *batch, name="both", isolation=isolation))
    assert [[line.text for line in result.logs] for result in results] == [["1"]] * 12
