from __future__ import annotations

import base64
import gzip
import json
import stat
import struct
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor import packages
from executor.model import Outcome
from executor.packages import Package, PackageRefused, unpack
from tests.executor.packing import zipped
from tests.executor.running import activation

if TYPE_CHECKING:
    import asyncio

    from tests.executor.running import Pool

MAIN = b"function main() {}"


def refusal(content: bytes, file: str = "rule/1.0.zip") -> str:
    with pytest.raises(PackageRefused) as refused:
        unpack(content, file, "js")
    return str(refused.value)


def info(path: str, **fields: int) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(path)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def renamed(content: bytes, old: bytes, new: bytes) -> bytes:
    """A zip whose writer had other ideas of names than zipfile has."""
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("files", "entry"),
    [
        pytest.param({"main.js": MAIN}, "main.js", id="main.js without being named"),
        pytest.param(
            {"package.json": "{}", "main.js": MAIN}, "main.js", id="a package that names none"
        ),
        pytest.param(
            {"package.json": '{"main": "./lib/rule.js"}', "lib/rule.js": MAIN},
            "lib/rule.js",
            id="the main of its package.json",
        ),
        pytest.param(
            {"package.json": '{"main": "a.cjs", "module": "a.mjs"}', "a.cjs": "", "a.mjs": MAIN},
            "a.mjs",
            id="module before main",
        ),
    ],
)
def test_a_package_names_its_entry(files: dict[str, str | bytes], entry: str) -> None:
    package = unpack(zipped(files), "rule/1.0.zip", "js")
    expected = {path: c.encode() if isinstance(c, str) else c for path, c in files.items()}
    assert package == Package(expected, entry)
    assert package.main == MAIN


def test_a_package_of_webassembly_runs_main_wasm() -> None:
    package = unpack(zipped({"main.wasm": b"\0asm", "main.js": MAIN}), "rule/1.0.zip", "wasm")
    assert package.main == b"\0asm"


@pytest.mark.parametrize("file", ["rule/1.0.js", "rule/1.0.wasm"])
def test_what_is_no_package_is_one_file(file: str) -> None:
    content = zipped({"main.js": MAIN})
    assert unpack(content, file, "js") == Package({"": content}, "")


def test_gzip_holds_one_file() -> None:
    assert unpack(gzip.compress(MAIN), "rule/1.0.gz", "js") == Package({"": MAIN}, "")


def test_an_archive_in_an_archive_is_a_file() -> None:
    inner = zipped({"main.js": MAIN})
    package = unpack(zipped({"main.js": MAIN, "inner.zip": inner}), "rule/1.0.zip", "js")
    assert package.files["inner.zip"] == inner


GOOD = {"main.js": MAIN}
GZIP_BOMB = gzip.compress(bytes(20 * 1024 * 1024))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"", "this is not a zip; pack it with `zip -X -r`", id="nothing"),
        pytest.param(b"\x1f\x8b gzip", "this is not a zip; pack it with `zip -X -r`", id="gzip"),
        pytest.param(
            zipped(GOOD)[:-30],
            "the zip does not end where it should; pack it anew, without a comment",
            id="cut off",
        ),
        pytest.param(
            zipped(GOOD) + b"more",
            "the zip does not end where it should; pack it anew, without a comment",
            id="something behind it",
        ),
        pytest.param(
            zipped([("../main.js", MAIN)]),
            "the path '../main.js' has an empty part, . or .. in it",
            id="a path that climbs",
        ),
        pytest.param(
            zipped([("a/../main.js", MAIN)]),
            "the path 'a/../main.js' has an empty part, . or .. in it",
            id="a path that climbs within",
        ),
        pytest.param(
            zipped([("/main.js", MAIN)]),
            "the path '/main.js' is absolute; paths start at the package",
            id="an absolute path",
        ),
        pytest.param(
            zipped([("C:/main.js", MAIN)]),
            "the path 'C:/main.js' is absolute; paths start at the package",
            id="a path with a drive",
        ),
        pytest.param(
            zipped([("a\\main.js", MAIN)]),
            "the path 'a\\\\main.js' holds a backslash or a control character",
            id="a backslash",
        ),
        pytest.param(
            zipped([("a\nmain.js", MAIN)]),
            "the path 'a\\nmain.js' holds a backslash or a control character",
            id="a line end in a path",
        ),
        pytest.param(
            renamed(zipped([("mainX.js", MAIN)]), b"mainX", b"main\0"),
            "the path 'main\\x00.js' holds a backslash or a control character",
            id="a NUL in a path",
        ),
        pytest.param(
            renamed(zipped([("m1in.js", MAIN)]), b"m1in", b"m\xe4in"),
            "the name of 'm\\u03a3in.js' is not marked as UTF-8; rename the file",
            id="a name in another encoding",
        ),
        pytest.param(
            renamed(zipped([("mäin.js", MAIN)]), "mäin".encode(), b"m\xe4\xe4in"),
            "the zip is damaged ('utf-8' codec can't decode byte 0xe4 in position 1: "
            "invalid continuation byte); pack it anew",
            id="a name that is marked as UTF-8 and is not",
        ),
        pytest.param(
            zipped([("a" * 300 + ".js", MAIN)]),
            f"the path '{'a' * 100}' is longer than 255 bytes",
            id="a long path",
        ),
        pytest.param(
            zipped([("main.js", MAIN), ("MAIN.js", MAIN)]),
            "the zip holds MAIN.js twice, or main.js beside it",
            id="two files that one disk would not keep apart",
        ),
        pytest.param(
            renamed(
                zipped([("main.js", MAIN), ("mainX.js", MAIN), ("main_.js", b"")]),
                b"main_",
                b"mainX",
            ),
            "the zip holds mainX.js twice, or mainX.js beside it",
            id="a file twice",
        ),
        pytest.param(
            zipped([("main.js", MAIN), ("main.js/a.js", MAIN)]),
            "the zip holds main.js both as a file and as a folder",
            id="a file that is a folder",
        ),
        pytest.param(
            zipped([(info("main.js", external_attr=(stat.S_IFLNK | 0o777) << 16), b"/etc/passwd")]),
            "main.js is a link or a special file; pack the file that is meant",
            id="a symbolic link",
        ),
        pytest.param(
            zipped([(info("main.js", external_attr=(stat.S_IFIFO | 0o777) << 16), b"")]),
            "main.js is a link or a special file; pack the file that is meant",
            id="a pipe",
        ),
        pytest.param(
            zipped([(info("main.js", compress_type=zipfile.ZIP_LZMA), MAIN)]),
            "main.js is packed with an unusual method; pack it with `zip -X -r`",
            id="a method that few know",
        ),
        pytest.param(
            zipped(GOOD).replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0"),
            "main.js is encrypted; pack it without a password",
            id="an encrypted file",
        ),
        pytest.param(
            zipped({f"{number}.js": "" for number in range(1_001)}),
            "the zip holds 1001 files and folders in 51943 bytes of directory; "
            "at most 1000 in 1024000 are taken",
            id="more files than are taken",
        ),
        pytest.param(
            zipped({"rule/main.js": MAIN}),
            'the package names no entry: add main.js, or "main" in a package.json at its top; '
            "there is rule/main.js: pack the files, not their folder",
            id="a folder in between",
        ),
        pytest.param(
            zipped({}),
            'the package names no entry: add main.js, or "main" in a package.json at its top',
            id="an empty zip",
        ),
        pytest.param(
            zipped({"package.json": '{"main": "rule.js"}'}),
            "\"main\" of package.json names 'rule.js', which is not in the package",
            id="an entry that is not there",
        ),
        pytest.param(
            zipped({"package.json": '{"main": ["main.js"]}', "main.js": MAIN}),
            '"main" of package.json names "[\'main.js\']", which is not in the package',
            id="an entry that is no name",
        ),
        pytest.param(zipped({"package.json": "[]"}), "package.json is not an object", id="a list"),
    ],
)
def test_a_zip_that_is_not_what_it_should_be_is_refused(content: bytes, told: str) -> None:
    assert refusal(content) == told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(
            MAIN,
            "this is not gzip (Error -3 while decompressing data: incorrect header check); "
            "pack it anew with `gzip -9 -n`",
            id="no gzip",
        ),
        pytest.param(
            gzip.compress(MAIN)[:-4],
            "the gzip ends too early; pack it anew with `gzip -9 -n`",
            id="cut off",
        ),
        pytest.param(
            gzip.compress(MAIN) + gzip.compress(MAIN),
            "something follows the gzipped file; a .gz holds one file, several go into a .zip",
            id="two files",
        ),
        pytest.param(
            GZIP_BOMB,
            f"{len(GZIP_BOMB)} bytes unpack to more than {100 * len(GZIP_BOMB)} bytes; at most "
            "16777216, and 100 times as many as packed, are taken",
            id="a bomb",
        ),
    ],
)
def test_a_gzip_that_is_not_what_it_should_be_is_refused(content: bytes, told: str) -> None:
    assert refusal(content, "rule/1.0.gz") == told


def test_a_bomb_is_refused_by_what_it_says_of_itself() -> None:
    bomb = zipped({"main.js": bytes(64 * 1024 * 1024)})
    assert refusal(bomb) == (
        f"{len(bomb)} bytes unpack to 67108864 bytes; at most 16777216, and 100 times as many as "
        "packed, are taken"
    )


def test_a_bomb_that_lies_about_its_size_is_not_inflated() -> None:
    honest = zipped({"main.js": bytes(4 * 1024 * 1024)})
    size = struct.pack("<L", 4 * 1024 * 1024)
    lying = honest.replace(size, struct.pack("<L", 1_000))
    assert refusal(lying) == "the zip is damaged (Bad CRC-32 for file 'main.js'); pack it anew"


def test_a_zip_that_holds_other_numbers_for_large_files_is_refused() -> None:
    content = zipped(GOOD)
    with_locator = content[:-22] + b"PK\x06\x07" + bytes(16) + content[-22:]
    assert (
        refusal(with_locator)
        == "the zip is of the kind for more than 4 GB; pack it with `zip -X -r`"
    )


def test_many_small_files_are_one_large_package() -> None:
    files = {f"{number}.js": bytes(100_000) for number in range(200)}
    assert "unpack to 20000000 bytes" in refusal(zipped(files, stored=True))


@given(st.binary(max_size=200), st.integers(0, 400), st.sampled_from(["r/1.zip", "r/1.gz"]))
def test_no_bytes_do_more_than_be_refused(noise: bytes, at: int, file: str) -> None:
    good = (
        gzip.compress(MAIN, mtime=0)
        if file.endswith("gz")
        else zipped({"main.js": MAIN, "a/b.js": b""})
    )
    damaged = good[:at] + noise + good[at + len(noise) :]
    for content in (noise, damaged):
        try:
            unpack(content, file, "js")
        except PackageRefused:
            continue


def test_packages_are_judged_and_opened_for_a_checker_too() -> None:
    given = [
        ("1.zip", "js", zipped(GOOD)),
        ("2.gz", "js", MAIN),
        ("3.gz", "js", gzip.compress(MAIN)),
    ]
    answer = subprocess.run(
        [sys.executable, "-m", packages.__name__],
        input=json.dumps([[n, k, base64.b64encode(c).decode()] for n, k, c in given]).encode(),
        capture_output=True,
        check=True,
    )
    told = (
        "this is not gzip (Error -3 while decompressing data: incorrect header check); "
        "pack it anew with `gzip -9 -n`"
    )
    scripts = {path: text.decode() for path, text in GOOD.items() if path.endswith(".js")}
    assert json.loads(answer.stdout) == [["", scripts], [told, {}], ["", {"": MAIN.decode()}]]


PACKAGES = {
    "1.js": b"export function main() { console.log('hello'); }",
    "1.gz": gzip.compress(b"export function main() { console.log('hello'); }"),
    "1.zip": zipped(
        {
            "main.js": "import { hello } from './lib/hello.js';\nexport default () => hello();",
            "lib/hello.js": "export const hello = () => { console.log('hello'); };",
        }
    ),
}


@pytest.mark.parametrize("file", PACKAGES)
def test_a_worker_unpacks_and_links_behind_its_sandbox(
    file: str, pool: Pool, runner: asyncio.Runner
) -> None:
    (result,) = runner.run(pool.run(PACKAGES[file], activation(), name=file, file=f"rule/{file}"))
    assert (result.outcome, result.message, [line.text for line in result.logs]) == (
        Outcome.SUCCEEDED,
        "",
        ["hello"],
    )


def test_a_bomb_is_refused_by_a_worker_that_goes_on(pool: Pool, runner: asyncio.Runner) -> None:
    bomb = zipped({"main.js": bytes(64 * 1024 * 1024)})
    good = PACKAGES["1.zip"]
    (refused,) = runner.run(pool.run(bomb, activation(), name="bomb", file="bomb/1.zip"))
    (result,) = runner.run(pool.run(good, activation(), name="good", file="good/1.zip"))
    assert (refused.outcome, refused.message, result.outcome) == (
        Outcome.LOAD_FAILED,
        (
            f"{len(bomb)} bytes unpack to 67108864 bytes; at most 16777216, and 100 times as many as "
            "packed, are taken (bomb/1.zip)"
        ),
        Outcome.SUCCEEDED,
    )
