"""Sources that are hostile, endless or strange: each fails alone, and the others go on."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.objects import SCRIPT_REPOSITORIES, SCRIPTS, ObjectKey
from tests.integration.conftest import Kubernetes
from tests.support.gitserver import Repository, bad_server
from tests.support.kube import wait_until
from tests.support.rulebook import HOUSE, QUIET, documents, script
from tests.support.statusfiles import status_files
from tests.support.system import System, condition, reason

RULES = {
    "manifests/one.yaml": documents(script("one", policy={"webhook": True})),
    "scripts/quiet/1.0.0.js": QUIET,
}
# Credentials that somebody left in a URL.
SECRET = "hunter2-in-the-clear"


def given_up(system: System, key: ObjectKey, *verdict: str) -> str:
    """What its condition says, once a repository is judged so."""
    live = system.object_is(
        SCRIPT_REPOSITORIES, key, lambda o: reason(o) == verdict, f"{key} is {verdict}"
    )
    told = condition(live, "Stalled") or condition(live, "Reconciling")
    return str(told["message"])


@contextlib.contextmanager
def endless_server() -> Iterator[int]:
    """Names a branch, and answers whoever asks for it with a pack that has no end."""
    oid = b"1" * 40
    refs = (oid + b" HEAD\0shallow agent=endless\n", oid + b" refs/heads/main\n")
    advertised = b"".join(b"%04x%s" % (len(line) + 4, line) for line in refs) + b"0000"
    # A pack of one object, a blob of 128 GiB, deflated without compression.
    head = b"PACK\0\0\0\2\0\0\0\1" + b"\xb0" + b"\x80" * 4 + b"\x08" + b"\x78\x01"
    block = b"\0\xff\xff\0\0" + bytes(65535)
    listener = socket.create_server(("127.0.0.1", 0))
    talkers: list[threading.Thread] = []

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(advertised)
            asked = b""
            while b"done" not in asked:
                more = connection.recv(4096)
                if not more:
                    return
                asked += more
                if b"deepen" in asked and b"shallow-told" not in asked:
                    connection.sendall(b"0034shallow " + oid + b"0000")
                    asked += b"shallow-told"
            connection.sendall(b"0008NAK\n" + head)
            while True:
                connection.sendall(block)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                talkers.append(threading.Thread(target=talk, args=(connection,)))
                talkers[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for talker in talkers:
            talker.join()


def test_servers_that_drip_or_send_without_end_are_given_up_and_delay_no_other_repository(
    embedded: System, namespace: str, git: Repository
) -> None:
    with bad_server(drip=b"ffefdrip ") as drip, endless_server() as endless:
        bad = [
            embedded.repository(namespace, f"git://127.0.0.1:{port}/x.git", name, timeout="3s")
            for name, port in (("drip", drip), ("endless", endless))
        ]
        rules = embedded.repository(namespace, git.path, interval="1s")
        # Revision after revision, while the others wait.
        for name in ("one", "two", "three"):
            files = {f"manifests/{name}.yaml": documents(script(name))}
            embedded.synced(rules, git.commit({**RULES, **files}))
            embedded.ready(ObjectKey(namespace, name))
        waiting = [embedded.get(SCRIPT_REPOSITORIES, key).get("status") or {} for key in bad]
        assert [status.get("conditions") for status in waiting] == [None] * 2
        for key in bad:
            message = given_up(embedded, key, "Unknown", "SourceUnavailable")
            assert "did not answer in full within 3 s; trying again" in message
        for key in bad:
            embedded.delete(SCRIPT_REPOSITORIES, key)


def test_a_repository_over_the_size_limit_is_stalled_and_deployed_when_it_has_shrunk(
    embedded: System, namespace: str, git: Repository, tmp_path: Path, monkeypatch: Any
) -> None:
    # The limit that an operator's controller would have, two gigabytes, takes long to fill.
    monkeypatch.setattr(embedded.controller.git, "_size_limit", 1024 * 1024)
    huge = Repository(tmp_path / "huge.git", "--bare")
    huge.commit({**RULES, "noise": os.urandom(3 * 1024 * 1024)})
    key = embedded.repository(namespace, huge.path, "huge", interval="1s")
    rules = embedded.repository(namespace, git.path)
    assert "larger than the limit" in given_up(embedded, key, "False", "SourceTooLarge")
    embedded.synced(rules, git.commit(HOUSE))
    embedded.ready(ObjectKey(namespace, "relay"))
    embedded.synced(key, huge.commit({"noise": None}))
    embedded.ready(ObjectKey(namespace, "one"))


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("ext::sh -c 'touch {trap}'", id="a transport that is a command"),
        pytest.param("--upload-pack=touch {trap}", id="an option of git"),
        pytest.param("ssh://-oProxyCommand=touch%20{trap}/a", id="an option of ssh"),
        pytest.param("-oProxyCommand=touch {trap}:a", id="an option of ssh, as scp writes it"),
        pytest.param("fd::0", id="an open file of ours"),
        pytest.param("file://other.example/srv/rules", id="a file of another machine"),
        pytest.param(f"https://{SECRET}@127.0.0.1:1/a.git", id="a token as a user name"),
        pytest.param(f"ftp://{SECRET}@example.invalid/a.git", id="a token for another protocol"),
        pytest.param(f"https://example.invalid/a.git?token={SECRET}", id="a token in a query"),
    ],
)
def test_a_hostile_url_starts_nothing_shows_no_token_and_delays_no_other_repository(
    embedded: System,
    namespace: str,
    git: Repository,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    url: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    trap = tmp_path / "trap"
    bad = embedded.repository(namespace, url.format(trap=trap), "bad")
    rules = embedded.repository(namespace, git.path)
    embedded.synced(rules, git.commit(RULES))
    embedded.ready(ObjectKey(namespace, "one"))
    live = embedded.object_is(
        SCRIPT_REPOSITORIES, bad, lambda o: reason(o)[1].startswith("Source"), "it is judged"
    )
    assert not trap.exists()
    shown = (
        live["status"],
        caplog.text,
        [vars(record) for record in caplog.records],
        embedded.ask("/api/v1alpha1/debug"),
    )
    assert SECRET not in str(shown)
    embedded.delete(SCRIPT_REPOSITORIES, bad)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"ref": "--upload-pack=touch {trap}"}, id="branch: an option"),
        pytest.param({"ref": "-x"}, id="branch: a short option"),
        pytest.param({"ref": "HEAD"}, id="branch: a symbolic name"),
        pytest.param({"ref": "main..x"}, id="branch: a range"),
        pytest.param({"ref": "main:refs/heads/x"}, id="branch: a refspec"),
        pytest.param({"ref": "refs/../../config"}, id="branch: a way out"),
        pytest.param({"ref": "main\nx"}, id="branch: two lines"),
        pytest.param({"statusRef": "--receive-pack=touch {trap}"}, id="status: an option"),
        pytest.param({"statusRef": "x/../main"}, id="status: a way out"),
        pytest.param({"statusRef": "HEAD"}, id="status: a symbolic name"),
        pytest.param({"statusRef": "main"}, id="status: the branch that is read"),
        pytest.param({"path": "../.."}, id="folder: a way out"),
        pytest.param({"path": "/etc"}, id="folder: one of the machine"),
        pytest.param({"path": ".git"}, id="folder: git's own"),
    ],
)
def test_a_hostile_branch_or_folder_is_stalled_and_moves_no_ref(
    embedded: System, namespace: str, git: Repository, tmp_path: Path, spec: dict[str, str]
) -> None:
    git.commit(RULES)
    before = git.git("for-each-ref")
    trap = tmp_path / "trap"
    filled = {name: value.format(trap=trap) for name, value in spec.items()}
    key = embedded.repository(namespace, git.path, **filled)
    live = embedded.object_is(
        SCRIPT_REPOSITORIES, key, lambda o: reason(o)[0] == "False", f"{spec} is refused"
    )
    assert condition(live, "Stalled")["message"]
    assert not trap.exists()
    assert git.git("for-each-ref") == before
    assert embedded.all(SCRIPTS, namespace) == {}
    mended = {"ref": "main", "statusRef": None, "path": ""}
    embedded.patch(SCRIPT_REPOSITORIES, key, {"spec": mended})
    embedded.ready(ObjectKey(namespace, "one"))
    wait_until(lambda: status_files(git), what="its status is committed")


@pytest.mark.parametrize(
    "date",
    [
        pytest.param("0 +0000", id="1970"),
        pytest.param("4294967296 +0000", id="2106"),
        pytest.param("-86400 +0000", id="before 1970"),
        pytest.param("99999999999999999999 +9999", id="nonsense"),
    ],
)
def test_a_revision_is_deployed_whatever_its_date(
    embedded: System, namespace: str, git: Repository, date: str
) -> None:
    rules = embedded.repository(namespace, git.path, interval="1s")
    embedded.synced(rules, git.commit(RULES))
    git.commit({**RULES, "manifests/two.yaml": documents(script("two"))}, branch="made")
    text = (
        f"tree {git.tree('made')}\nparent {git.tip()}\n"
        f"author a <a@b> {date}\ncommitter a <a@b> {date}\n\nstrange\n"
    ).encode()
    commit = git.git("hash-object", "-t", "commit", "--literally", "-w", "--stdin", stdin=text)
    git.git("update-ref", "refs/heads/main", commit)
    embedded.synced(rules, commit)
    # And whatever comes after it.
    embedded.synced(rules, git.commit({"manifests/three.yaml": documents(script("three"))}))
    assert set(embedded.all(SCRIPTS, namespace)) >= {"two", "three"}


@pytest.mark.kube
def test_an_object_too_large_for_etcd_fails_alone_with_its_name_and_the_largest_one_goes_out(
    on_kubernetes: Kubernetes, team: str, git: Repository
) -> None:
    system = on_kubernetes.system
    value = "x" * 32_000

    def sized(name: str, values: int) -> bytes:
        return documents(script(name, env={f"v{n}": value for n in range(values)}))

    rules = system.repository(team, git.path, interval="1s")
    files = {"manifests/large.yaml": sized("large", 32), **RULES}
    # A quote is one byte of YAML and two of JSON: the file is small enough, the object is not.
    quotes = {f"v{n}": '"' * 32_000 for n in range(20)}
    files["manifests/too-large.yaml"] = documents(script("too-large", env=quotes))
    live = system.synced(rules, git.commit(files))
    assert [(p["path"], p["reason"]) for p in live["status"]["problems"]] == [
        ("manifests/too-large.yaml", "ObjectTooLarge")
    ]
    assert set(system.all(SCRIPTS, team)) == {"one", "large"}
    for name in ("one", "large"):
        system.ready(ObjectKey(team, name))
