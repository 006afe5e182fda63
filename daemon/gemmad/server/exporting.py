"""POST /api/export: a child process writes a pair as files that other programs load."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import msgspec
from aiohttp import web

from gemmad.api.errors import BadRequest, GemmaError, WillNotFit
from gemmad.dialects.ollama.making import ExportBody
from gemmad.dialects.ollama.replies import Record
from gemmad.dialects.ollama.requests import model_name
from gemmad.runners.process import scrubbed_environment
from gemmad.server.bodies import read_json
from gemmad.server.local import is_local, require_local
from gemmad.server.services import SERVICES
from gemmad.server.statuses import told

_FORMATS = ("hf", "gguf")
_LINE_BYTES = 1 << 20
_TAIL_LINES = 5


class ExportFailed(GemmaError):
    """The pair could not be written; the message says why."""

    code = "export_failed"


async def export(request: web.Request) -> web.StreamResponse:
    """POST /api/export: over the Unix socket only, since it writes where it is told."""
    body = await read_json(request, ExportBody)
    require_local(request, body.path or ("" if is_local(request) else "."))
    if body.format not in _FORMATS:
        raise BadRequest(f"'format' is {body.format[:40]!r}.", fix="Use hf or gguf.")
    if not Path(body.path).is_absolute():
        raise BadRequest("'path' is not absolute.", fix="Give the whole path.")
    services, name = request.app[SERVICES], model_name(body.called)
    manifest = await asyncio.to_thread(services.store.get, name)
    files = await asyncio.to_thread(services.store.pair_files, manifest)
    asked = {
        "name": manifest.name,
        "format": body.format,
        "path": body.path,
        "files": msgspec.to_builtins(files),
        "force": bool(body.force),
    }
    return await told(request, body, _written(services.exporter, asked))


async def _written(command: Sequence[str], asked: Record) -> AsyncGenerator[Record, None]:
    """The child's records. A reader that leaves ends it; what it wrote it removes.

    Raises:
        ExportFailed: the child could not write the pair.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
        env=scrubbed_environment(os.environ),
        cwd=os.sep,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    words = asyncio.ensure_future(process.stderr.read())
    try:
        process.stdin.write(msgspec.json.encode(asked))
        process.stdin.close()
        async for line in process.stdout:
            record = msgspec.json.decode(line, type=Record)
            if "error" in record:
                raise _refusal(record)
            yield record
        if await process.wait() != 0:
            tail = (await words).decode(errors="replace").splitlines()[-_TAIL_LINES:]
            raise ExportFailed(f"The exporter ended with {process.returncode}: {' '.join(tail)}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            if process.returncode is None:
                process.terminate()
        await process.wait()
        await words


def _refusal(record: Record) -> GemmaError:
    """The child's error, as what it is: a place that is taken, a disk that is full."""
    kinds: dict[str, type[GemmaError]] = {kind.code: kind for kind in (BadRequest, WillNotFit)}
    kind = kinds.get(str(record.get("code")), ExportFailed)
    fix = record.get("fix")
    return kind(str(record["error"]), fix=fix if isinstance(fix, str) else None)
