"""`scriptops render`: complete manifests that somebody else applies, or nothing at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from tests.integration.command_line import CommandLine
from tests.support.rulebook import HOUSE, QUIET, documents, relay, script

REGISTRY = "http://scriptops-controller.scriptops-system:8000/registry/team/rules"


@pytest.fixture
def scriptops(capsys):
    return CommandLine(capsys)


def written(root: Path, files: dict[str, bytes]) -> str:
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return str(root)


def render(scriptops: CommandLine, folder: str, *more: str):
    return scriptops("render", folder, "--repository", "rules", "-n", "team", *more)


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_register_and_digest_are_filled_in_and_nothing_else(scriptops, tmp_path):
    code, out, err = render(scriptops, written(tmp_path, HOUSE))
    assert (code, err) == (0, "")
    found = list(yaml.safe_load_all(out))
    given = [
        *yaml.safe_load_all(HOUSE["manifests/devices.yaml"]),
        *yaml.safe_load_all(HOUSE["manifests/relay.yaml"]),
    ]
    for document in given:
        document["metadata"]["namespace"] = "team"
    digest = sha256(HOUSE["scripts/relay/1.0.0.js"])
    given[-1]["spec"]["manifest"] |= {"register": REGISTRY, "digest": digest}
    assert [(d["kind"], d["metadata"]["name"]) for d in found] == [
        ("DeviceModel", "lamp"),
        ("DeviceModel", "sensor"),
        ("Device", "door"),
        ("Device", "lamp"),
        ("Script", "relay"),
    ]
    assert sorted(found, key=json.dumps) == sorted(given, key=json.dumps)


def test_as_json_it_is_one_list(scriptops, tmp_path):
    folder = written(tmp_path, HOUSE)
    told = json.loads(render(scriptops, folder, "-o", "json").out)
    assert told == {
        "apiVersion": "v1",
        "kind": "List",
        "items": list(yaml.safe_load_all(render(scriptops, folder).out)),
    }


def test_the_registry_is_that_of_the_controller_that_is_named(scriptops, tmp_path):
    folder = written(tmp_path, HOUSE)
    out = render(scriptops, folder, "--registry", "https://scriptops.example.org/").out
    register = list(yaml.safe_load_all(out))[-1]["spec"]["manifest"]["register"]
    assert register == "https://scriptops.example.org/registry/team/rules"


def test_a_register_that_a_manifest_names_stays(scriptops, tmp_path):
    own = script("own")
    own["spec"]["manifest"]["register"] = "https://artifacts.example.org"
    out = render(scriptops, written(tmp_path, {"manifests/own.yaml": documents(own)})).out
    assert yaml.safe_load(out)["spec"] == own["spec"]


@pytest.mark.parametrize("value", ["1e3", "y", "0.10", "0x1F", "1_000", "null", "~", "12:30", " a"])
def test_text_stays_text_whoever_reads_it(scriptops, tmp_path, value):
    """A reader of YAML 1.1 takes some of these for numbers and booleans where they are bare."""
    files = {
        "manifests/one.yaml": json.dumps(script("one", env={"limit": value})).encode(),
        "scripts/quiet/1.0.0.js": QUIET,
    }
    out = render(scriptops, written(tmp_path, files)).out
    assert f"limit: {json.dumps(value)}" in out or f"limit: '{value}'" in out
    assert yaml.safe_load(out)["spec"]["env"] == {"limit": value}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param({"manifests/bad.yaml": b"kind: ["}, "InvalidYaml", id="broken YAML"),
        pytest.param(
            {"manifests/second.yaml": documents(script("second", artifact="absent"))},
            "ArtifactNotFound",
            id="a Script without its artifact",
        ),
        pytest.param(
            {"manifests/second.yaml": documents(script("second", suspended=True))},
            "UnknownField",
            id="a field that there is not",
        ),
        pytest.param({"scripts/relay/1.0.0.zip": b"PK"}, "VersionTwice", id="a version twice"),
        pytest.param(
            {
                "manifests/second.yaml": documents(relay("second")).replace(
                    b"version: 1.0.0", b"version: 1.0.0\n    digest: sha256:" + b"0" * 64
                )
            },
            "DigestMismatch",
            id="a digest of other bytes",
        ),
    ],
)
def test_with_anything_wrong_nothing_is_printed(scriptops, tmp_path, files, words):
    code, out, err = render(scriptops, written(tmp_path, {**HOUSE, **files}))
    assert (code, out) == (1, "")
    assert words in err


def test_of_an_empty_repository_nothing_is_printed_and_it_fails(scriptops, tmp_path):
    code, out, err = render(scriptops, written(tmp_path, {"manifests/README.md": b"x"}))
    assert (code, out, err) == (
        1,
        "",
        "there is no object in the manifests, so nothing is printed\n",
    )


def test_of_one_kind_only_that_is_printed_and_all_of_the_repository_is_checked(scriptops, tmp_path):
    folder = written(tmp_path, HOUSE)
    out = render(scriptops, folder, "--kind", "Script").out
    assert [it["kind"] for it in yaml.safe_load_all(out)] == ["Script"]
    written(tmp_path, {"manifests/bad.yaml": b"kind: ["})
    assert render(scriptops, folder, "--kind", "Script")[:2] == (1, "")


def test_where_there_is_none_of_that_kind_it_fails(scriptops, tmp_path):
    files = {path: content for path, content in HOUSE.items() if "devices" not in path}
    ended = render(scriptops, written(tmp_path, files), "--kind", "Device")
    words = "there is no Device in the manifests, so nothing is printed"
    assert ended[:2] == (1, "")
    assert words in ended.err


def test_a_folder_that_is_no_repository_is_an_error(scriptops, tmp_path):
    assert render(scriptops, str(tmp_path / "absent"))[:2] == (2, "")
