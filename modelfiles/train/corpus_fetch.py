"""Downloads one pinned registry package without installing it, and reads the files inside."""

import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


class Package(NamedTuple):
    """One file of a public registry: `registry` is "apt", "pip" or "npm"."""

    registry: str
    name: str
    version: str


class Member(NamedTuple):
    """One regular file inside a package; `path` has no leading "./"."""

    path: str
    data: bytes


class FetchError(Exception):
    """A package could not be downloaded or its archive could not be read."""


def fetch(package: Package, cache: Path) -> Path:
    """The package's archive is in `cache`, at the pinned version, or at the newest with a notice.

    Raises:
        FetchError: neither version could be downloaded.
    """
    for pinned in (True, False):
        folder = cache / package.registry / f"{package.name}-{package.version if pinned else 'new'}"
        found = _archive_in(folder)
        if found is None:
            _download(package, folder, pinned)
            found = _archive_in(folder)
        if found is not None:
            if not pinned:
                print(f"notice: {package.name} {package.version} is gone, using {found.name}")
            return found
    raise FetchError(
        f"{package.name} {package.version} could not be downloaded from {package.registry}; "
        "check the network, or leave the source out with --allow-missing"
    )


def _archive_in(folder: Path) -> Path | None:
    suffixes = (".deb", ".whl", ".tgz", ".tar.gz")
    files = sorted(folder.glob("*")) if folder.is_dir() else []
    return next((file for file in files if file.name.endswith(suffixes)), None)


def _download(package: Package, folder: Path, pinned: bool) -> None:
    """The archive lies in `folder` if the registry has it; nothing is left there if it has not."""
    scratch = folder.with_name(folder.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    done = _COMMANDS[package.registry](package, scratch, pinned)
    if done and _archive_in(scratch) is not None:
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    else:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(command: list[str], folder: Path) -> bool:
    """True when the client succeeded; its last words go to stderr when it did not."""
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FetchError(f"{command[0]} is not installed, so its registry can't be read") from error
    if result.returncode != 0:
        print(f"{' '.join(command[:3])}: {result.stderr.strip()[-300:]}", file=sys.stderr)
    return result.returncode == 0


def _apt(package: Package, folder: Path, pinned: bool) -> bool:
    """Uses lists and a cache of its own, so it needs no root and changes nothing on the system."""
    state = folder.parent / "state"
    options = ["-o", f"Dir::State::lists={state / 'lists'}", "-o", f"Dir::Cache={state / 'cache'}"]
    options += ["-o", "APT::Sandbox::User="]
    if not (state / "updated").exists():
        for part in ("lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True, exist_ok=True)
        if not _run(["apt-get", *options, "update"], folder):
            return False
        (state / "updated").touch()
    wanted = f"{package.name}={package.version}" if pinned else package.name
    return _run(["apt-get", *options, "download", wanted], folder)


def _pip(package: Package, folder: Path, pinned: bool) -> bool:
    wanted = f"{package.name}=={package.version}" if pinned else package.name
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    return _run([sys.executable, "-m", "pip", "download", *options, wanted], folder)


def _npm(package: Package, folder: Path, pinned: bool) -> bool:
    wanted = f"{package.name}@{package.version}" if pinned else package.name
    return _run(["npm", "pack", "--silent", wanted], folder)


_COMMANDS: dict[str, Callable[[Package, Path, bool], bool]] = {
    "apt": _apt,
    "pip": _pip,
    "npm": _npm,
}


def members(archive: Path, wanted: Callable[[str], bool]) -> list[Member]:
    """Every regular file of the archive whose path `wanted` accepts, sorted by path.

    Raises:
        FetchError: the archive is damaged or of an unknown kind.
    """
    try:
        if archive.suffix == ".whl":
            return sorted(_zip_members(archive, wanted))
        return sorted(_tar_members(_tar_bytes(archive), wanted))
    except (tarfile.TarError, zipfile.BadZipFile, subprocess.CalledProcessError) as error:
        raise FetchError(f"{archive.name} can't be read ({error}); delete it and retry") from error


def _tar_bytes(archive: Path) -> bytes:
    """A .deb holds a tar of its files, which dpkg-deb prints whatever its compression is."""
    if archive.suffix != ".deb":
        return archive.read_bytes()
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _tar_members(raw: bytes, wanted: Callable[[str], bool]) -> Iterator[Member]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        for info in tar:
            path = info.name.removeprefix("./")
            handle = tar.extractfile(info) if info.isfile() and wanted(path) else None
            if handle is not None:
                yield Member(path, handle.read())


def _zip_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as whole:
        for path in whole.namelist():
            if wanted(path):
                yield Member(path, whole.read(path))
