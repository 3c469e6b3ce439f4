"""From `scriptops artifact push` to a run: a real registry, a real executor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.objects import ObjectKey
from tests.integration.command_line import CommandLine
from tests.support.dockerregistry import (
    LOGIN,
    Cosigner,
    Registry,
    docker_config,
    docker_registry,
    sha256,
)
from tests.support.gitserver import Repository
from tests.support.rulebook import QUIET, documents, script
from tests.support.system import System, condition, executor, serving, settings

TEAM = "team"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with docker_registry(tmp_path / "registry", login=True) as it:
        yield it


@pytest.fixture
def config(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `docker login` left, where docker looks for it."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return docker_config(folder / "config.json", registry.host)


@pytest.fixture
def rule(tmp_path: Path) -> Path:
    path = tmp_path / "scripts" / "quiet" / "1.0.0.js"
    path.parent.mkdir(parents=True)
    path.write_bytes(QUIET)
    return path


def test_what_is_pushed_can_be_pulled_and_keeps_its_bytes(
    command: CommandLine, registry: Registry, config: Path, rule: Path, tmp_path: Path
) -> None:
    asked = command("artifact", "push", registry.register, str(rule), "-o", "json")
    assert (asked.code, asked.err) == (0, "")
    (pushed,) = json.loads(asked.out)
    place = f"oci://{registry.host}/rules/quiet:1.0.0"
    assert pushed == {
        "reference": place,
        "digest": sha256(QUIET),
        "manifestDigest": pushed["manifestDigest"],
        "pushed": True,
    }
    again = command("artifact", "push", registry.register, str(rule))
    assert again.out.splitlines() == [
        f"unchanged {place}@{pushed['manifestDigest']}",
        f"  spec.manifest.digest: {sha256(QUIET)}",
    ]
    folder = tmp_path / "pulled"
    given = ("artifact", "pull", registry.register, "quiet/1.0.0", "--folder", str(folder))
    assert command(*given).code == 0
    assert (folder / "quiet" / "1.0.0.js").read_bytes() == QUIET
    rule.write_bytes(b"main()")
    refused = command("artifact", "push", registry.register, str(rule))
    assert refused.code == 2
    assert "a version keeps its bytes" in refused.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(
            ("push", "oci://127.0.0.1:1/rules", "{rule}"), "cannot be reached", id="nobody"
        ),
        pytest.param(("push", "https://127.0.0.1:1", "{rule}"), "write oci://", id="no OCI URL"),
        pytest.param(
            ("push", "oci://h/r", "{rule}/../x.txt"), "does not say what it is", id="name"
        ),
        pytest.param(("pull", "{register}", "quiet"), "write NAME/VERSION", id="no version"),
        pytest.param(("pull", "{register}", "quiet/9"), "does not exist", id="not there"),
        pytest.param(("pull", "{register}", "../9"), "write NAME/VERSION", id="a way up"),
    ],
)
def test_what_cannot_be_done_is_told(
    command: CommandLine,
    registry: Registry,
    config: Path,
    rule: Path,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    given = [it.format(rule=rule, register=registry.register) for it in arguments]
    refused = command("artifact", *given)
    assert (refused.code, refused.out) == (2, "")
    assert words in refused.err
    assert LOGIN[1] not in refused.err


def named(register: str, **manifest: str) -> bytes:
    """A Script that runs what the register has."""
    document = script("remote", policy={"webhook": True})
    document["spec"]["manifest"] |= {"register": register, **manifest}
    return documents(document)


def test_a_script_out_of_an_oci_registry_runs_where_it_is_allowed_signed_and_pinned(
    command: CommandLine,
    registry: Registry,
    config: Path,
    rule: Path,
    git: Repository,
    tmp_path: Path,
) -> None:
    alice = Cosigner()
    key = tmp_path / "cosign.pub"
    key.write_bytes(alice.public)
    asked = command("artifact", "push", registry.register, str(rule), "-o", "json")
    (pushed,) = json.loads(asked.out)
    remote = ObjectKey(TEAM, "remote")

    def is_stalled(system: System, why: str) -> Any:
        return system.script_is(
            remote, lambda o: condition(o, "Stalled").get("reason") == why, f"{remote} is {why}"
        )

    git.commit({"manifests/remote.yaml": named(registry.register, digest=pushed["digest"])})
    with serving(settings(tmp_path / "closed")) as system:
        system.repository(TEAM, git.path)
        is_stalled(system, "Forbidden")
    chosen = settings(
        tmp_path / "data",
        registers=frozenset({registry.host}),
        register_config=config,
        register_keys=(key,),
    )
    with serving(chosen) as system, executor(system.grpc, tmp_path / "executor.log"):
        system.repository(TEAM, git.path)
        is_stalled(system, "ArtifactUnverified")
        bundle = alice.bundle(pushed["manifestDigest"])
        registry.refer("rules/quiet", pushed["manifestDigest"], bundle)
        wrong = "sha256:" + "0" * 64
        git.commit({"manifests/remote.yaml": named(registry.register, digest=wrong)})
        is_stalled(system, "DigestMismatch")
        git.commit({"manifests/remote.yaml": named(registry.register, digest=pushed["digest"])})
        assert system.ready(remote)["status"]["digest"] == pushed["digest"]
