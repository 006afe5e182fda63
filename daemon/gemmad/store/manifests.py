"""Manifest files: linked last, unlinked first; a damaged one is named and harms no other."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gemmad.api.errors import BadRequest, ModelNotFound, StoreBroken
from gemmad.core import Manifest, ModelName, decode_manifest, encode_manifest
from gemmad.store.disk import Disk
from gemmad.store.inside import require_inside
from gemmad.store.paths import StorePaths
from gemmad.store.publishing import make_durable_directory, write_all

MAX_MANIFEST_BYTES = 4 << 20


class Broken(NamedTuple):
    """A manifest that is there but cannot be believed."""

    name: ModelName
    reason: str


class Manifests:
    """The names of a store. Callers serialise writers."""

    def __init__(self, paths: StorePaths, disk: Disk) -> None:
        self._paths = paths
        self._disk = disk

    def read(self, name: ModelName) -> Manifest:
        """The manifest of `name`.

        Raises:
            ModelNotFound: there is no such name.
            StoreBroken: it is there and damaged.
        """
        try:
            data = self._disk.read(self._inside(name), MAX_MANIFEST_BYTES)
            manifest = decode_manifest(data)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise not_found(name) from error
        except OSError as error:
            what = error.strerror or str(error)
            raise StoreBroken(f"The manifest of '{name}' cannot be read: {what}.") from error
        except StoreBroken as error:
            fix = f"Pull it again: gemma pull {name.short}"
            raise StoreBroken(f"Model '{name}' is broken: {error.message}", fix=fix) from error
        if not _names(manifest, name):
            said = manifest.name[:200]
            raise StoreBroken(f"The manifest of '{name}' is the one of {said!r}.")
        return manifest

    def all(self) -> Iterator[Manifest | Broken]:
        """Every name, sound or broken."""
        for path in self._disk.walk(self._paths.manifests):
            if (found := self.at(path)) is not None:
                yield found

    def at(self, path: Path) -> Manifest | Broken | None:
        """The name whose manifest lies at `path`; None for a stranger's file, or one now gone."""
        if (name := self._paths.name_of(path)) is None:
            return None
        try:
            return self.read(name)
        except StoreBroken as error:
            return Broken(name, str(error))
        except ModelNotFound:
            return None

    def link(self, manifest: Manifest) -> None:
        """The name is on the disk, pointing at blobs that the caller knows to be whole.

        Raises:
            OSError: the disk refused; an older manifest of that name still stands.
        """
        path = self._paths.manifest(ModelName.parse(manifest.name))
        make_durable_directory(path.parent, self._disk, self._paths.manifests)
        require_inside(path, self._paths.manifests, self._disk)
        part = self._paths.manifest_part
        fd = self._disk.open_new(part)
        try:
            write_all(fd, encode_manifest(manifest), self._disk)
            self._disk.sync(fd)
        finally:
            self._disk.close(fd)
        self._disk.rename(part, path)
        self._disk.sync_directory(path.parent)

    def unlink(self, name: ModelName) -> None:
        """The name is gone from the disk, and so are directories that held only it.

        Raises:
            ModelNotFound: there is no such name.
            OSError: the disk refused.
        """
        try:
            path = self._inside(name)
            self._disk.unlink(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise not_here(name) from error
        self._disk.sync_directory(path.parent)
        with contextlib.suppress(OSError):  # not empty: other tags live there
            for parent in path.parents:
                if parent == self._paths.manifests:
                    return
                self._disk.remove_directory(parent)

    def _inside(self, name: ModelName) -> Path:
        path = self._paths.manifest(name)
        require_inside(path, self._paths.manifests, self._disk)
        return path


def _names(manifest: Manifest, name: ModelName) -> bool:
    try:
        return ModelName.parse(manifest.name).key == name.key
    except BadRequest:
        return False


def not_here(name: ModelName) -> ModelNotFound:
    """The error for a name that cannot be removed, as the store does not have it."""
    return ModelNotFound(
        f"model '{name.short}' not found.", fix="See what is there with: gemma list"
    )


def not_found(name: ModelName) -> ModelNotFound:
    """The error for a name the store does not have, to somebody who wants to use it."""
    return ModelNotFound(
        f"model '{name.short}' not found.", fix=f"Pull it with: gemma pull {name.short}"
    )
