"""Who may name files of this machine: callers on its Unix socket, whom file permissions vouch for.

Over TCP a path is refused before anything looks at it: the answer is the same, byte for byte,
whether or not there is such a file.
"""

from aiohttp import web

from gemmad.api.errors import BadRequest
from gemmad.sources.reference import Reference


def require_local(request: web.Request, *paths: str | None) -> None:
    """No path is given, or the request came over the Unix socket.

    Raises:
        BadRequest: a path came over TCP.
    """
    if any(paths) and not is_local(request):
        raise BadRequest(
            "Files of this machine can be named over its Unix socket only.",
            fix="Upload them (POST /api/blobs/sha256:<digest>), or use the gemma command.",
        )


def require_local_references(request: web.Request, *texts: str | None) -> None:
    """None of the references is a path, or the request came over the Unix socket.

    Raises:
        BadRequest: a path came over TCP, or a text is no reference.
    """
    paths = [t for t in texts if t and t != "none" and Reference.parse(t).scheme == "path"]
    require_local(request, *paths)


def is_local(request: web.Request) -> bool:
    """Whether the request came over the Unix socket."""
    transport = request.transport
    address = transport.get_extra_info("sockname") if transport else None
    return not isinstance(address, tuple)
