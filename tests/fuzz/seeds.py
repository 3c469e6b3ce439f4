"""Where fuzzing begins: what the doors are meant for, so that little has to be guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import orjson
from scriptops.controller.v1 import controller_pb2 as pb

from executor.model import Outcome, ScriptType
from tests.core.manifests import device, script
from tests.fuzz.targets import CUT, SENDERS

PROJECT = Path(__file__).parents[2]
PUSHES = PROJECT / "tests" / "support" / "webhooks"


def manifests() -> Iterator[bytes]:
    for path in sorted((PROJECT / "repo-template").rglob("*.yaml")):
        yield path.read_bytes()
    yield script("one").encode() + b"---\n" + device("lamp").encode() + CUT + script("one").encode()


def entry(mode: bytes, name: bytes, tree: int) -> bytes:
    return mode + b" " + name + b"\0" + bytes([tree]) + bytes(19)


def trees() -> Iterator[bytes]:
    file, folder = b"100644", b"40000"
    yield CUT.join(
        (
            entry(file, b"a", 200) + entry(folder, b"b", 2),
            entry(file, b"a", 201) + entry(folder, b"b", 3) + entry(file, b"c", 202),
            entry(file, b"x", 200),
            entry(file, b"x", 200) + entry(b"160000", b"module", 203),
        )
    )
    yield CUT.join(
        (b"", entry(folder, b".git", 2) + entry(file, b"..", 200) + entry(file, b"A", 1))
    )


def webhooks() -> Iterator[bytes]:
    for path in sorted(PUSHES.glob("*.json")):
        for number in range(len(SENDERS)):
            yield bytes([number]) + path.read_bytes()
    yield b"\0payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D"


def wire() -> Iterator[bytes]:
    key = pb.RunKey(run_id="run", attempt=1, epoch=1)
    ref = pb.ScriptRef(namespace="n", name="s", digest="sha256:0", type=ScriptType.JS, file="f")
    write = pb.UpdateDeviceDesired(alias="lamp", property="power", bool_value=True)
    status = pb.UpdateScriptStatus(key=key, outcome=Outcome.SUCCEEDED, writes=[write])
    info = pb.ClientInfo(protocol=1, name="e", script_types=[ScriptType.JS], engines={"v8": "1"})
    for message in (
        pb.ClientMessage(connect=pb.Connect(client_info=info)),
        pb.ClientMessage(results=pb.UpdateScriptStatuses(results=[status])),
        pb.ClientMessage(exit=pb.ClientExit(reason="bye")),
        pb.ServerMessage(
            runs=pb.RunScripts(scripts=[pb.RunScript(script=ref, runs=[pb.Run(key=key)])])
        ),
    ):
        yield message.SerializeToString()
    yield orjson.dumps([[int(Outcome.SUCCEEDED), "", [["info", "x"]], [], {"n": 1}, []]])


SEEDS: Mapping[str, Callable[[], Iterator[bytes]]] = {
    "manifests": manifests,
    "trees": trees,
    "webhooks": webhooks,
    "wire": wire,
}


def write(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(SEEDS[name]()):
        (folder / f"seed-{number}").write_bytes(content)
