"""The image of `deploy/images/Containerfile`, built without a daemon, and containers of it.

No registry is asked: the base is Debian of the release that this machine runs, made once into
`~/.cache/scriptops`; packages come from where this machine's apt and pip have them. Containers have
namespaces of their own for mounts and processes, and share the network. All of that takes root.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "deploy" / "images" / "Containerfile"
CACHE = Path.home() / ".cache" / "scriptops"
PROGRAMS = ("buildah", "mmdebstrap", "unshare", "setpriv", "pivot_root")
# What the official images of Python have that a bare Debian lacks.
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
BUILD_SECONDS = 600

# Arguments: the image's root, the folder that is mounted as `work`, the user, the command. The root
# is read-only; what a runtime mounts is there: proc, dev, and a /tmp as the Deployments have one.
_ENTER = """
set -eu
root=$1 work=$2 user=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount --bind "$work" "$root/work"
mount -o remount,bind,ro "$root"
cd "$root"
pivot_root . tmp
umount --lazy /tmp
mount -t tmpfs -o mode=1777 tmp /tmp
cd /work
# Another user forgets whose death it was to die with.
exec setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups --bounding-set=-all \
    --inh-caps=-all --no-new-privs --pdeathsig KILL "$@"
"""


@dataclass(frozen=True)
class Image:
    """What was built. `root` is its file system, `config` what it says of how it is run."""

    root: Path
    config: Mapping[str, Any]

    def command(self, work: Path, *arguments: str, **env: str) -> list[str]:
        """Of a container as the image says it is run, `work` being its working folder."""
        given = [*self.config["Env"], "HOME=/tmp", *(f"{k}={v}" for k, v in env.items())]
        return [
            *("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"),
            *("sh", "-c", _ENTER, "sh", str(self.root), str(work), self.config["User"]),
            *("env", "--ignore-environment", *given, *arguments),
        ]

    def run(
        self, work: Path, *arguments: str, entrypoint: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Wait for a container that ends by itself, of another `entrypoint` where one is given."""
        program = self.config["Entrypoint"] if entrypoint is None else [entrypoint]
        return subprocess.run(
            self.command(work, *program, *arguments),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @contextlib.contextmanager
    def running(
        self, work: Path, log: Path, *arguments: str, **env: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A container that is ended with the block."""
        with log.open("wb") as output:
            command = self.command(work, *arguments, **env)
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            try:
                yield process
            finally:
                process.kill()
                process.wait()


def workspace(folder: Path, image: Image) -> Path:
    """A folder that the user of the image may write."""
    folder.mkdir()
    user, group = map(int, image.config["User"].split(":"))
    os.chown(folder, user, group)
    return folder


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Built once for the session. Skips, and says why, where this machine cannot."""
    if os.geteuid() != 0:
        pytest.skip("no image is built: mounting its file system takes root")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        pytest.fail(f"no {', '.join(missing)}: run tests/support/setup.sh", pytrace=False)
    folder = tmp_path_factory.mktemp("image")
    store = _Store(folder)
    base = store.imported(_base())
    mounts = [f"--volume={source}:{target}:ro" for source, target in _mounts(folder)]
    store.run("bud", "--isolation=chroot", "--network=host", "--pull-never",
              f"--build-arg=BASE={base}", *mounts, f"--file={RECIPE}", "--tag=scriptops",
              str(ROOT))  # fmt: skip
    container = store.run("from", "--pull-never", "localhost/scriptops")
    told = json.loads(store.run("inspect", "--type=image", "localhost/scriptops"))
    try:
        yield Image(Path(store.run("mount", container)), told["OCIv1"]["config"])
    finally:
        store.run("umount", container)
        shutil.rmtree(folder, ignore_errors=True)


class _Store:
    """Images and containers of one session, apart from those of the machine."""

    def __init__(self, folder: Path) -> None:
        self._buildah = ["buildah", f"--root={folder / 'images'}", f"--runroot={folder / 'run'}"]
        # Layers over each other where the kernel lets us, else copies of them.
        driver = "--storage-driver=overlay"
        asked = subprocess.run([*self._buildah, driver, "info"], capture_output=True, check=False)
        if asked.returncode:
            driver = "--storage-driver=vfs"
            shutil.rmtree(folder / "images", ignore_errors=True)
        self._buildah.append(driver)

    def run(self, *arguments: str) -> str:
        """What it printed; fails with what it complained of."""
        done = subprocess.run(
            [*self._buildah, *arguments],
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
        if done.returncode:
            said = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
            pytest.fail(f"buildah {arguments[0]}: {said}", pytrace=False)
        return done.stdout.strip()

    def imported(self, archive: Path) -> str:
        """The name of an image that is made of one archive."""
        name = f"localhost/{archive.name.removesuffix('.tar')}"
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, str(archive), "/")
        self.run("commit", "--quiet", container, name)
        self.run("rm", container)
        return name


def _base() -> Path:
    """Debian with Python, from the places where this machine's apt has its packages."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    archive = CACHE / f"base-{release}.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = archive.with_name(f".{os.getpid()}-{archive.name}")
        sources = [Path("/etc/apt", it) for it in ("sources.list.d/debian.sources", "sources.list")]
        done = subprocess.run(
            ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={BASE_PACKAGES}",
             release, str(unfinished), *[str(it) for it in sources if it.exists()]],
            capture_output=True, text=True, timeout=BUILD_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.fail(f"no base image: {done.stderr[-2000:]}", pytrace=False)
        unfinished.rename(archive)
    return archive


def _mounts(folder: Path) -> Iterator[tuple[Path, str]]:
    """What makes pip and apt inside the build find what they find outside of it."""
    pip, apt = folder / "pip.conf", folder / "apt.conf"
    listed = subprocess.run(
        ["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    # As `global.find-links='/a\\n/b'`, those of the environment last.
    options = {
        name.rpartition(".")[2]: str(ast.literal_eval(value)).split()
        for name, _, value in (line.partition("=") for line in listed.splitlines())
    }
    lines = [f"{name} = " + "\n    ".join(values) for name, values in options.items()]
    pip.write_text("\n".join(["[global]", *lines, ""]))
    apt.write_text(
        subprocess.run(
            ["apt-config", "dump", '--format=%f "%v";%n', "Acquire"], capture_output=True,
            text=True, check=True,
        ).stdout
    )  # fmt: skip
    yield pip, "/etc/pip.conf"
    yield apt, "/etc/apt/apt.conf.d/99-machine"
    for value in {it for values in options.values() for it in values}:
        local = Path(value.removeprefix("file://"))
        if local.is_absolute() and local.exists():
            # What an index of files names lies beside it.
            place = local.parent if local.name == "simple" else local
            yield place, str(place)
