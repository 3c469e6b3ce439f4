"""Secrets of Scripts on a whole system: used by the rule, and to be read nowhere else."""

from __future__ import annotations

import base64
import os
import re
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters import age
from reconciler.core.objects import LABEL_ENV, ObjectKey
from tests.integration.command_line import CommandLine
from tests.integration.conftest import Kubernetes
from tests.support.gitserver import Repository
from tests.support.kube import KubeServer, wait_until
from tests.support.rulebook import documents, script
from tests.support.system import PATIENCE, ROOT, Process, ask, condition, reason

CANARY = "canary-4711"
NEWER = "canary-0815"
SEALED = "canary-sealed-99"
# All that a careless rule can do with its secrets.
LEAKY = b"""\
async function main() {
  const { token, sealed } = Deno.env;
  console.log("using", token, btoa("user:" + sealed), encodeURIComponent(token));
  State.set("token", token);
  if (State.get("n") === 1) throw new Error("refused: " + token + sealed);
  State.set("n", 1);
}
"""
TELLING = b"""\
function main() { console.log("length", Deno.env.token.length, Deno.env.token.slice(-4)); }
"""


def leaky(name: str, ciphertext: str, artifact: str = "leaky") -> dict[str, Any]:
    return script(
        name,
        artifact=artifact,
        policy={"webhook": True},
        envFrom={
            "token": {"secretKeyRef": {"name": "api", "key": "token"}},
            "sealed": {"age": ciphertext},
        },
    )


def keygen(folder: Path) -> tuple[Path, str]:
    """A file with an identity, and its recipient."""
    file = folder / "key.txt"
    subprocess.run(["age-keygen", "-o", file], check=True, capture_output=True)
    return file, file.read_text().partition("# public key: ")[2].splitlines()[0]


def assert_nowhere(found: Mapping[str, str]) -> None:
    """None of the secrets, however carried, in any of these."""
    forms: list[str] = []
    for secret in (CANARY, NEWER, SEALED):
        raw = secret.encode()
        forms += [secret, raw.hex(), base64.b64encode(b"user:" + raw).decode().rstrip("=")]
    assert [name for name, text in found.items() if any(form in text for form in forms)] == []


def page(web: str, path: str) -> str:
    try:
        with urllib.request.urlopen(web + path, timeout=PATIENCE) as answer:  # noqa: S310 - our own server
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_on_a_laptop_no_output_page_file_or_commit_shows_what_rules_were_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity, recipient = keygen(tmp_path)
    secret = tmp_path / "secrets" / "api"
    secret.mkdir(parents=True)
    (secret / "token").write_text(CANARY)
    (secret / ".for-scripts").touch()
    git = Repository(tmp_path / "rules.git", "--bare")
    git.commit(
        {
            "manifests/leaky.yaml": documents(leaky("leaky", age.encrypt(SEALED, [recipient]))),
            "scripts/leaky/1.0.0.js": LEAKY,
        }
    )
    up = Process(
        (
            *("reconciler", "up", str(git.path), "--web=127.0.0.1:0", "--grpc=127.0.0.1:0"),
            *("--mqtt=", "--log-level=debug", f"--data={tmp_path / 'data'}"),
            *(f"--secrets={secret.parent}", f"--age-identity={identity}"),
        ),
        tmp_path / "up.log",
        {"HOME": str(tmp_path), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
    )
    up.start()
    try:
        up.says("http://127.0.0.1:")
        web = re.findall(r"http://127\.0\.0\.1:\d+(?=/?\s)", up.output)[0]
        runs = f"{web}/api/v1alpha1/runs"

        def ended(outcome: str) -> Any:
            items = ask(runs)["items"]
            return next((it for it in items if it["outcome"] == outcome), None)

        first = wait_until(lambda: ended("Succeeded"), what="it has run once")
        ask(f"{web}/api/v1alpha1/scripts/default/leaky/trigger", method="POST", body={})
        failed = wait_until(lambda: ended("Failed"), what="it has failed once")
        assert [line["text"] for line in first["logs"]] == ["using *** *** ***"]
        assert failed["message"].startswith("Error: refused: ******")
        wait_until(
            lambda: "refused" in git.git("log", "-p", "--all") and ask_recordings(web, 2),
            what="it is committed and recorded",
        )
        command_line = CommandLine(capsys)
        shown = {
            path: page(web, path)
            for path in (
                *("/", "/metrics", "/readyz", "/status"),
                *(f"/api/v1alpha1/{it}" for it in ("scripts", "runs", "recordings", "debug")),
                *(f"/api/v1alpha1/{it}" for it in ("repositories", "executors", "version")),
                *(f"/api/v1alpha1/runs/{it['id']}/recording" for it in (first, failed)),
            )
        }
        for arguments in (
            ("get", "scripts", "-o", "yaml"),
            ("get", "scripts", "-o", "wide"),
            ("get", "runs", "-o", "json"),
            ("recordings", "-o", "json"),
        ):
            done = command_line(*arguments, "--controller", web)
            shown[" ".join(arguments)] = done.out + done.err
        assert '"***"' in shown["/api/v1alpha1/scripts"]
        shown["git"] = git.git("log", "-p", "--all", "--format=fuller")
        assert up.stop() == 0
    finally:
        if up.code is None:
            up.stop()
    shown["output"] = up.output
    for database in (tmp_path / "data").glob("recordings*.db"):
        with sqlite3.connect(database) as opened:
            shown[database.name] = "\n".join(opened.iterdump())
    assert sum(name.endswith(".db") for name in shown) >= 1
    assert_nowhere(shown)


def ask_recordings(web: str, count: int) -> bool:
    return len(ask(f"{web}/api/v1alpha1/recordings")["items"]) >= count


def keep(kube: KubeServer, team: str, name: str, *, shared: bool = True, **data: str) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {LABEL_ENV: "true"} if shared else {}},
        "stringData": data,
    }
    kube.request(
        "PATCH",
        f"/api/v1/namespaces/{team}/secrets/{name}?fieldManager=operator",
        body,
        content_type="application/apply-patch+yaml",
    )


@pytest.mark.kube
def test_on_kubernetes_a_secret_may_come_late_and_change_and_shows_nowhere(
    on_kubernetes: Kubernetes, team: str, git: Repository, tmp_path: Path
) -> None:
    kube, system = on_kubernetes.kube, on_kubernetes.system
    identity, recipient = keygen(tmp_path)
    ciphertext = age.encrypt(SEALED, [recipient])
    commit = git.commit(
        {
            "manifests/rules.yaml": documents(
                leaky("leaky", ciphertext), leaky("telling", ciphertext, "telling")
            ),
            "scripts/leaky/1.0.0.js": LEAKY,
            "scripts/telling/1.0.0.js": TELLING,
        }
    )
    rules = system.repository(team, git.path, decryption={"secretRef": {"name": "age"}})
    system.synced(rules, commit)
    key = ObjectKey(team, "telling")
    waiting = system.script_is(key, lambda o: reason(o)[1] == "SecretNotFound", "it waits")
    assert condition(waiting, "Reconciling")["status"] == "True"
    assert (waiting.get("status") or {}).get("runs", 0) == 0
    keep(kube, team, "age", shared=False, **{"team.agekey": identity.read_text()})
    keep(kube, team, "api", shared=False, token=CANARY)
    told = system.script_is(key, lambda o: reason(o)[1] == "SecretNotShared", "it still waits")
    assert f"{LABEL_ENV}=true" in condition(told, "Ready")["message"]
    keep(kube, team, "api", token=CANARY)
    system.ready(key)
    wait_until(lambda: lines(system, team) == ["length 11 4711"], what="it has run with it")
    keep(kube, team, "api", token=NEWER)

    def newer() -> bool:
        system.ask(f"/api/v1alpha1/scripts/{team}/telling/trigger", method="POST", body={})
        return "length 11 0815" in lines(system, team)

    wait_until(newer, what="the next runs are given what it says now", every=1.0)
    leak = ObjectKey(team, "leaky")
    system.ready(leak)
    system.ask(f"/api/v1alpha1/scripts/{team}/leaky/trigger", method="POST", body={})
    system.script_is(leak, lambda o: "refused" in o["status"]["message"], "its error is told")
    wait_until(lambda: "refused" in git.git("log", "-p", "--all"), what="it is committed")
    done = {
        " ".join(arguments): subprocess.run(
            ["kubectl", f"--kubeconfig={kube.kubeconfig}", "-n", team, *arguments],
            capture_output=True,
            check=True,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        ).stdout
        for arguments in (
            ("get", "scripts,scriptrepositories,events", "-o", "yaml"),
            ("describe", "scripts"),
        )
    }
    live = done["get scripts,scriptrepositories,events -o yaml"]
    assert ciphertext.splitlines()[1] in live
    assert "Error: refused: ******" in live
    done["git"] = git.git("log", "-p", "--all")
    done["runs"] = str(system.ask(f"/api/v1alpha1/runs?namespace={team}"))
    done["recordings"] = str(system.ask(f"/api/v1alpha1/recordings?namespace={team}"))
    assert_nowhere(done)


def lines(system: Any, team: str) -> list[str]:
    runs = system.runs(team, "telling")
    return list(dict.fromkeys(line["text"] for run in runs for line in run["logs"]))


def test_what_is_encrypted_on_the_command_line_is_valid_and_decrypted(tmp_path: Path) -> None:
    identity, recipient = keygen(tmp_path)
    encrypted = scriptops(
        "secrets", "encrypt", "token", "--recipient", recipient, given=f"{CANARY}\n"
    )
    assert (encrypted.returncode, encrypted.stderr) == (0, "")
    assert CANARY not in encrypted.stdout
    manifest = documents(script("a", envFrom={})).decode().replace("  envFrom: {}\n", "")
    indented = "".join(f"  {line}\n" for line in encrypted.stdout.splitlines())
    rules = tmp_path / "rules"
    for name, text in (
        ("manifests/a.yaml", manifest + indented),
        ("scripts/quiet/1.0.0.js", "function main() {}"),
    ):
        (rules / name).parent.mkdir(parents=True, exist_ok=True)
        (rules / name).write_text(text)
    assert scriptops("validate", str(rules)).returncode == 0
    bare = scriptops("secrets", "encrypt", "-R", str(recipients(tmp_path, recipient)), given=CANARY)
    opened = subprocess.run(
        ["age", "-d", "-i", identity], input=bare.stdout, capture_output=True, text=True, check=True
    )
    assert opened.stdout == CANARY
    file = rules / "manifests/a.yaml"
    file.write_text(file.read_text().replace("-----END AGE", "-----AND AGE"))
    refused = scriptops("validate", str(rules))
    assert refused.returncode == 1
    assert "manifests/a.yaml:" in refused.stdout
    assert "the ciphertext is cut off" in refused.stdout


def test_without_a_recipient_nothing_is_encrypted(tmp_path: Path) -> None:
    for arguments in ((), ("-r", "age1nobody")):
        done = scriptops("secrets", "encrypt", *arguments, given=CANARY)
        assert (done.returncode, done.stdout) == (2, "")
        assert "age1" in done.stderr
        assert CANARY not in done.stderr


def recipients(folder: Path, recipient: str) -> Path:
    file = folder / "recipients"
    file.write_text(f"# the controller\n\n{recipient}\n")
    return file


def scriptops(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reconciler", *arguments],
        cwd=ROOT,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env={**os.environ, "COLUMNS": "200"},
    )
