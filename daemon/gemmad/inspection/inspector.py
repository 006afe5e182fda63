"""Asks a disposable process what the files of a pair are; its crash is the file's fault."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import msgspec

from gemmad.api.errors import Unsupported
from gemmad.inspection.inspected import Answer, Inspected
from gemmad.inspection.progress import last_read
from gemmad.wire import PairFiles

TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 4 << 20

_PACKAGES = str(Path(__file__).resolve().parents[2])  # where the child finds ours
_PASSED = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "HOME", "PYTHONHOME", "VIRTUAL_ENV")
_LIBRARIES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # where some builds of Python need them


async def inspect(files: PairFiles, timeout_s: float = TIMEOUT_S) -> Inspected:
    """The facts of the pair whose files are at these paths.

    Raises:
        Unsupported: a file is damaged, hostile, or of a model that does not run; names it.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "gemmad.inspection"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(),
        cwd=Path(sys.executable).anchor,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(msgspec.json.encode(files))
    except TimeoutError:
        raise Unsupported(
            f"The model's files could not be read within {timeout_s:g} seconds.",
            fix="Are they whole? Pull or create the model again.",
        ) from None
    finally:
        await _end(process)
    return _inspected(stdout, stderr, process.returncode)


def _inspected(stdout: bytes, stderr: bytes, code: int | None) -> Inspected:
    """What the process answered, or why it could not."""
    answer = Answer()
    if code == 0 and len(stdout) <= MAX_ANSWER_BYTES:
        with contextlib.suppress(msgspec.MsgspecError):
            answer = msgspec.json.decode(stdout, type=Answer)
    if answer.inspected is not None:
        return answer.inspected
    if answer.refused is not None:
        raise Unsupported(answer.refused, fix="Use the files as their publisher offers them.")
    raise Unsupported(
        f"{last_read(stderr) or 'A file'} cannot be used: reading it took more memory or time "
        f"than any sound file does, or broke the reader ({_ending(code)}).",
        fix="Do not trust this file; pull the model from its publisher.",
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    """The process is gone, and whoever it may have started."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            process.kill()
    await process.wait()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _environment() -> dict[str, str]:
    """No secret and no proxy. `-I` would hide packages that PYTHONPATH brought to us."""
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    paths = os.pathsep.join((_PACKAGES, *map(os.path.abspath, given)))
    kept = {name: os.environ[name] for name in (*_PASSED, *_LIBRARIES) if name in os.environ}
    return kept | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
