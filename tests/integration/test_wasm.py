"""A rule in WebAssembly: whole, from the commit to the device and to what is remembered."""

from __future__ import annotations

import gzip
from pathlib import Path

from wasmtime import wat2wasm

from reconciler.core.objects import DEVICES_V1BETA1, ObjectKey
from tests.support.gitserver import Repository
from tests.support.kube import wait_until
from tests.support.rulebook import DEVICES, documents, script
from tests.support.system import condition, executor, serving, settings

TEAM = "team"
RELAY, DOOR, LAMP, RULES = (ObjectKey(TEAM, n) for n in ("relay", "door", "lamp", "rules"))

# The lamp shines while the door is open; when that was not known the run changes nothing.
MODULE = bytes(
    wat2wasm("""
(module
  (import "scriptops_v1" "device_bool" (func $bool (param i32 i32 i32 i32) (result i32)))
  (import "scriptops_v1" "device_set_bool" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (import "scriptops_v1" "device_commit" (func $commit (param i32 i32 i32 i32) (result i32)))
  (import "scriptops_v1" "state_set" (func $state (param i32 i32 i32 i32) (result i32)))
  (import "scriptops_v1" "log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "sensor" "open" "lamp" "power" "\\"wasm\\"")
  (func (export "main") (result i32) (local $open i32)
    (local.set $open (call $bool (i32.const 0) (i32.const 6) (i32.const 6) (i32.const 4)))
    (if (i32.lt_s (local.get $open) (i32.const 0)) (then (return (i32.const 0))))
    (drop (call $log (i32.const 2) (i32.const 10) (i32.const 4)))
    (drop (call $state (i32.const 6) (i32.const 4) (i32.const 19) (i32.const 6)))
    (drop (call $set (i32.const 10) (i32.const 4) (i32.const 14) (i32.const 5) (local.get $open)))
    (call $commit (i32.const 10) (i32.const 4) (i32.const 0) (i32.const 0))))
""")
)
LOOP = bytes(wat2wasm('(module (func (export "main") (loop (br 0))))'))


def rule(content: bytes, *, extension: str = "wasm") -> dict[str, bytes]:
    manifest = script(
        "relay",
        artifact="relay",
        reads={"sensor": "door"},
        writes={"lamp": "lamp"},
        policy={"readChange": True},
    )
    manifest["spec"]["manifest"]["scriptType"] = "Wasm"
    return {
        "manifests/devices.yaml": DEVICES,
        "manifests/relay.yaml": documents(manifest),
        f"scripts/relay/1.0.0.{extension}": content,
    }


def test_a_wasm_rule_is_deployed_run_and_obeyed(tmp_path: Path, git: Repository) -> None:
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        system.repository(TEAM, git.path)
        system.synced(RULES, git.commit(rule(gzip.compress(MODULE), extension="gz")))
        system.ready(RELAY)
        system.report(DOOR, open=True)
        system.object_is(
            DEVICES_V1BETA1,
            LAMP,
            lambda o: o["spec"]["properties"][0].get("desired", {}).get("value") == "true",
            "the lamp is on",
        )
        wait_until(lambda: len(system.runs(*RELAY)) == 2, what="it has run twice")
        last = system.runs(*RELAY)[-1]
        assert (last["cause"], last["outcome"], last["logs"]) == (
            *("ReadChange", "Succeeded"),
            [{"level": "info", "text": "lamp"}],
        )
        [shown] = system.ask("/api/v1alpha1/scripts")["items"]
        assert shown["state"] == {"open": "wasm"}


def test_a_wasm_rule_that_loops_times_out_and_is_told(tmp_path: Path, git: Repository) -> None:
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        system.repository(TEAM, git.path)
        files = rule(LOOP)
        files["manifests/relay.yaml"] = files["manifests/relay.yaml"].replace(
            b"spec:\n", b"spec:\n  limits: {wallTime: 100ms}\n", 1
        )
        system.synced(RULES, git.commit(files))
        wait_until(lambda: system.runs(*RELAY), what="it has run")
        [run] = system.runs(*RELAY)
        assert (run["outcome"], run["message"]) == (
            *("TimedOut", "it did not finish within 100 ms"),
        )


def test_a_module_that_imports_what_there_is_not_never_gets_ready(
    tmp_path: Path, git: Repository
) -> None:
    with (
        serving(settings(tmp_path / "data")) as system,
        executor(system.grpc, tmp_path / "executor.log"),
    ):
        system.repository(TEAM, git.path)
        module = '(module (import "env" "system" (func)) (func (export "main")))'
        system.synced(RULES, git.commit(rule(bytes(wat2wasm(module)))))
        said = system.script_is(
            RELAY,
            lambda o: condition(o, "Ready") and condition(o, "Ready")["status"] == "False",
            "it is not ready",
        )
        assert (
            "it imports env.system, which scripts are not given"
            in condition(said, "Ready")["message"]
        )
