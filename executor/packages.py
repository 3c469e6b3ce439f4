"""Artifacts that are packages: a zip with a module tree, or one file in gzip.

Unpacked in memory, and only where a script would run as well: in a worker. Sizes are added up
before anything is inflated and held to while inflating, so that a bomb costs no more than a package
of the permitted size. Archives inside of archives are files like any other.

What a zip runs is the file that its `package.json` names (`module`, else `main`), else `main.js` or
`main.wasm` at its top.
"""

from __future__ import annotations

import base64
import codecs
import io
import stat
import struct
import sys
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UNPACKED_BYTES: Final = 16 * 1024 * 1024
"""All files of a package together; a rule of 1 MB is large, and V8 takes about four times its
source."""

FILES: Final = 1_000
"""Files and folders of a package; linking takes about 1 ms for each module."""

RATIO: Final = 100
"""How much larger than packed: code has 3 to 10, a megabyte of zeros 1,000."""

SMALL_BYTES: Final = 1024 * 1024
"""Below this the ratio says nothing: a small file of one repeated line is no bomb."""

PATH_BYTES: Final = 255
DIRECTORY_BYTES: Final = FILES * 1_024
"""Of a zip's own table of contents, which is read before anything in it can be judged."""

# zipfile looks this up when it meets a name; a worker can import nothing by then.
codecs.lookup("cp437")

_END: Final = struct.Struct("<4s4H2LH")
_END_SIGNATURE: Final = b"PK\x05\x06"
# Where it stands, other numbers count than those that are judged here.
_LOCATOR_SIGNATURE: Final = b"PK\x06\x07"
_LOCATOR_BYTES: Final = 20
_ENCRYPTED: Final = 0x1
_UTF8_NAME: Final = 0x800

Kind = Literal["js", "wasm"]


class PackageRefused(Exception):
    """The package cannot be used; the message is for its author and names what to change."""


@dataclass(frozen=True, slots=True)
class Package:
    """Files by path. `entry` is the one that runs; it is "" where the artifact is a single file."""

    files: Mapping[str, bytes]
    entry: str

    @property
    def main(self) -> bytes:
        return self.files[self.entry]


def unpack(content: bytes, file: str, kind: Kind) -> Package:
    """The package in `content`, which is what the ending of `file` says: zip, gz, or no package.

    Raises:
        PackageRefused: it is not well-formed, too large, or holds what it may not.
    """
    if file.endswith(".zip"):
        return _of_zip(content, kind)
    if file.endswith(".gz"):
        return Package({"": _gunzipped(content)}, "")
    return Package({"": content}, "")


def _gunzipped(content: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    limit = _limit(len(content))
    try:
        inflated = inflater.decompress(content, limit + 1)
    except zlib.error as error:
        raise PackageRefused(
            f"this is not gzip ({error}); pack it anew with `gzip -9 -n`"
        ) from error
    if len(inflated) > limit:
        raise PackageRefused(_too_large(len(content), f"more than {limit} bytes"))
    if not inflater.eof:
        raise PackageRefused("the gzip ends too early; pack it anew with `gzip -9 -n`")
    if inflater.unused_data:
        raise PackageRefused(
            "something follows the gzipped file; a .gz holds one file, several go into a .zip"
        )
    return inflated


def _limit(packed: int) -> int:
    """What so many bytes may become."""
    return min(UNPACKED_BYTES, max(SMALL_BYTES, RATIO * packed))


def _too_large(packed: int, unpacked: str) -> str:
    return (
        f"{packed} bytes unpack to {unpacked}; at most {UNPACKED_BYTES}, and {RATIO} times "
        "as many as packed, are taken"
    )


def _of_zip(content: bytes, kind: Kind) -> Package:
    _judge_end(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = _judged(archive.infolist(), len(content))
            files = {path: _read(archive, info) for path, info in entries.items()}
    # What zipfile raises for a damaged archive depends on where the damage is.
    except (
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        EOFError,
        NotImplementedError,
        struct.error,
    ) as error:
        raise PackageRefused(f"the zip is damaged ({error}); pack it anew") from error
    return Package(files, _entry(files, kind))


def _judge_end(content: bytes) -> None:
    """Looks at the end of the archive, where the size of its contents stands."""
    end = content[-_END.size :]
    if len(end) < _END.size or not end.startswith(_END_SIGNATURE):
        if content.startswith(b"PK"):
            raise PackageRefused(
                "the zip does not end where it should; pack it anew, without a comment"
            )
        raise PackageRefused("this is not a zip; pack it with `zip -X -r`")
    _, _, _, _, count, size, _, comment = _END.unpack(end)
    if comment:
        raise PackageRefused("the zip is cut off; pack it anew")
    if content[-_END.size - _LOCATOR_BYTES :].startswith(_LOCATOR_SIGNATURE):
        raise PackageRefused("the zip is of the kind for more than 4 GB; pack it with `zip -X -r`")
    if count > FILES or size > DIRECTORY_BYTES:
        raise PackageRefused(
            f"the zip holds {count} files and folders in {size} bytes of directory; "
            f"at most {FILES} in {DIRECTORY_BYTES} are taken"
        )


def _judged(infos: Iterable[zipfile.ZipInfo], packed: int) -> dict[str, zipfile.ZipInfo]:
    """The files to read, by path."""
    files: dict[str, zipfile.ZipInfo] = {}
    # As they would meet on a disk that knows neither case nor Unicode forms.
    seen: dict[str, str] = {}
    folders: set[str] = set()
    size = 0
    for info in infos:
        path = _path(info)
        if info.is_dir():
            continue
        _judge_file(info, path)
        folded = _folded(path)
        if folded in seen:
            raise PackageRefused(f"the zip holds {path} twice, or {seen[folded]} beside it")
        seen[folded] = path
        parts = folded.split("/")
        folders.update("/".join(parts[:end]) for end in range(1, len(parts)))
        files[path] = info
        size += info.file_size
    if clash := folders & seen.keys():
        raise PackageRefused(f"the zip holds {seen[min(clash)]} both as a file and as a folder")
    if size > _limit(packed):
        raise PackageRefused(_too_large(packed, f"{size} bytes"))
    return files


def _path(info: zipfile.ZipInfo) -> str:
    """The judged path of an entry."""
    path = info.orig_filename
    if not path.isascii() and not info.flag_bits & _UTF8_NAME:
        raise PackageRefused(f"the name of {_shown(path)} is not marked as UTF-8; rename the file")
    if len(path.encode()) > PATH_BYTES:
        raise PackageRefused(f"the path {_shown(path)} is longer than {PATH_BYTES} bytes")
    parts = path.removesuffix("/").split("/")
    if path.startswith("/") or ":" in parts[0]:
        raise PackageRefused(f"the path {_shown(path)} is absolute; paths start at the package")
    if any(part in {"", ".", ".."} for part in parts):
        raise PackageRefused(f"the path {_shown(path)} has an empty part, . or .. in it")
    if "\\" in path or any(unicodedata.category(letter) == "Cc" for letter in path):
        raise PackageRefused(f"the path {_shown(path)} holds a backslash or a control character")
    return path


def _judge_file(info: zipfile.ZipInfo, path: str) -> None:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        raise PackageRefused(f"{path} is a link or a special file; pack the file that is meant")
    if info.flag_bits & _ENCRYPTED:
        raise PackageRefused(f"{path} is encrypted; pack it without a password")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise PackageRefused(f"{path} is packed with an unusual method; pack it with `zip -X -r`")


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        # One byte more is asked for, so that a file which lies about its size is found out.
        content = file.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise PackageRefused(f"{info.filename} is not as large as the zip says; pack it anew")
    return content


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _entry(files: Mapping[str, bytes], kind: Kind) -> str:
    usual = f"main.{kind}"
    manifest = files.get("package.json")
    if manifest is not None:
        try:
            fields = orjson.loads(manifest)
        except orjson.JSONDecodeError as error:
            raise PackageRefused(f"package.json is not JSON ({error})") from error
        if not isinstance(fields, dict):
            raise PackageRefused("package.json is not an object")
        for field in ("module", "main"):
            named = fields.get(field)
            if named is None:
                continue
            entry = named.removeprefix("./") if isinstance(named, str) else ""
            if entry not in files:
                raise PackageRefused(
                    f'"{field}" of package.json names {_shown(str(named))}, '
                    "which is not in the package"
                )
            return entry
    if usual in files:
        return usual
    deeper = sorted(path for path in files if path.endswith(f"/{usual}"))
    hint = f"; there is {deeper[0]}: pack the files, not their folder" if deeper else ""
    raise PackageRefused(
        f'the package names no entry: add {usual}, or "main" in a package.json at its top{hint}'
    )


def _shown(path: str) -> str:
    return ascii(path[:100])


def main() -> int:
    """Say of each artifact given on standard input what is wrong with it, and what is in it.

    `python -m executor.packages`: a JSON list of [file name, js|wasm, base64] in; out comes a JSON
    list of [message, sources], the message "" for a good one, the sources its JavaScript by path.
    """
    told: list[tuple[str, dict[str, str]]] = []
    for file, kind, content in orjson.loads(sys.stdin.buffer.read()):
        try:
            package = unpack(base64.b64decode(content), file, kind)
        except PackageRefused as refused:
            told.append((str(refused), {}))
        else:
            told.append(("", dict(_sources(package) if kind == "js" else ())))
    sys.stdout.buffer.write(orjson.dumps(told))
    return 0


def _sources(package: Package) -> Iterable[tuple[str, str]]:
    for path, content in package.files.items():
        if not path or path.endswith((".js", ".mjs")):
            yield path, content.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
