"""Writes a stored pair where other programs can load it: `python -m gemmarunner.export`.

One JSON request on stdin, one JSON object a line on stdout:

    <- {"files": PairFiles, "format": "hf" | "gguf", "path": "/…/NAME", "name": "…", "force": false}
    -> {"status": "writing target", "completed": 123, "total": 456}
    -> {"status": "The drafter's …"}                                 what a person should know
    -> {"status": "success", "files": ["/…/NAME.gguf", "/…/mtp-NAME.gguf"]}
    -> {"error": "…", "code": "bad_request", "fix": "…"}            instead, exit status 1

What is written stands aside, under `.NAME.partial-PID`, until it is whole.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from gemmad.api.errors import BadRequest, GemmaError, WillNotFit
from gemmad.wire import PairFiles
from gemmarunner.files import Files

Tell = Callable[[dict[str, object]], None]


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to write where."""

    files: PairFiles
    format: Literal["hf", "gguf"]
    path: str
    name: str = "gemma-4"
    force: bool = False  # replace what is there


def export(request: ExportRequest, tell: Tell) -> list[Path]:
    """The pair is written; returns the files or directories that are new.

    Raises:
        BadRequest: the place is taken or is none, or the pair cannot be written so.
        LoadFailed: its files are damaged.
        OSError: it cannot be written.
    """
    target, drafter = _paths(request.files.target), _paths(request.files.drafter)
    path = Path(request.path)
    if not path.is_absolute() or not path.parent.is_dir():
        raise BadRequest("The place to write to is no absolute path in a directory that is there.")
    if request.format == "hf":
        return _as_directories(request, path, target, drafter, tell)
    return _as_gguf(request, path, target, drafter, tell)


def _as_gguf(
    request: ExportRequest, path: Path, target: Files, drafter: Files, tell: Tell
) -> list[Path]:
    from gemmarunner.export_gguf import write_drafter, write_target

    beside = path.with_name(f"mtp-{path.name}")
    places = [path, beside] if drafter else [path]
    _check_free(places, request.force)
    with _aside(places) as (whole, *draft):
        note = write_target(target, whole, request.name, _progress("target", tell))
        if drafter:
            told = _progress("drafter", tell)
            note = write_drafter(drafter, target, draft[0], request.name, told)
        for made, place in reversed(list(zip([whole, *draft], places, strict=True))):
            _publish(made, place)
    _tell_note(note, tell)
    return places


def _as_directories(
    request: ExportRequest, path: Path, target: Files, drafter: Files, tell: Tell
) -> list[Path]:
    from gemmarunner.export_hf import write_half

    _check_free([path], request.force)
    with _aside([path]) as (whole,):
        told = _progress("target", tell)
        note = write_half(target, whole / "target", told, is_drafter=False)
        if drafter:
            told = _progress("drafter", tell)
            note = write_half(drafter, whole / "drafter", told, is_drafter=True) or note
        if path.is_dir():
            shutil.rmtree(path)
        whole.replace(path)
    _tell_note(note, tell)
    return [path / "target", path / "drafter"] if drafter else [path / "target"]


def _check_free(places: list[Path], force: bool) -> None:
    taken = [place.name for place in places if place.exists() or place.is_symlink()]
    if taken and not force:
        raise BadRequest(f"{' and '.join(taken)}: already there.", fix="Name another, or force it.")


@contextlib.contextmanager
def _aside(places: list[Path]) -> Iterator[list[Path]]:
    """Places to write to first; nothing is left there."""
    made = [place.with_name(f".{place.name}.partial-{os.getpid()}") for place in places]
    try:
        yield made
    finally:
        for place in made:
            if place.is_dir():
                shutil.rmtree(place)
            place.unlink(missing_ok=True)


def _publish(made: Path, place: Path) -> None:
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(place)


def _tell_note(note: str | None, tell: Tell) -> None:
    if note:
        tell({"status": note})


def _progress(what: str, tell: Tell) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        tell({"status": f"writing {what}", "completed": done, "total": total})

    return told


def _paths(files: dict[str, str] | None) -> Files:
    return {name: Path(path) for name, path in (files or {}).items()}


def main() -> int:
    """Runs one export; returns the exit status."""
    lines = sys.stdout

    def tell(line: dict[str, object]) -> None:
        lines.write(json.dumps(line) + "\n")
        lines.flush()

    try:
        request = msgspec.json.decode(sys.stdin.buffer.read(), type=ExportRequest)
        with contextlib.redirect_stdout(sys.stderr):  # libraries may print
            made = export(request, tell)
    except (GemmaError, msgspec.ValidationError, msgspec.DecodeError) as error:
        return _failed(tell, error if isinstance(error, GemmaError) else BadRequest(str(error)))
    except OSError as error:
        return _failed(tell, WillNotFit(f"The export could not be written: {error.strerror}."))
    except Exception as error:  # a child's main: the daemon must get a line, the log has the rest
        _failed(tell, GemmaError(f"The export failed: {type(error).__name__}: {error}."))
        raise
    tell({"status": "success", "files": [str(place) for place in made]})
    return 0


def _failed(tell: Tell, error: GemmaError) -> int:
    tell({"error": error.message, "code": error.code, "fix": error.fix})
    return 1


if __name__ == "__main__":
    sys.exit(main())
