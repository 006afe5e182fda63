"""The disposable process: limits itself, reads paths from standard input, answers on standard output.

A file that breaks the reader breaks this process and nothing else; nothing here can write a file.
"""  # noqa: E501

import sys

import msgspec

from gemmad.formats.limits import BadFile
from gemmad.inspection.inspected import Answer
from gemmad.inspection.look import look
from gemmad.wire import PairFiles

ADDRESS_SPACE_BYTES = 512 << 20
CPU_SECONDS = 20
OPEN_FILES = 64


def main() -> None:
    """Answer one question and end."""
    limit_self()
    files = msgspec.json.decode(sys.stdin.buffer.read(), type=PairFiles)
    sys.stdout.buffer.write(msgspec.json.encode(answer(files)))
    sys.stdout.buffer.flush()


def answer(files: PairFiles) -> Answer:
    """The facts of the pair, or why it is refused."""
    try:
        return Answer(inspected=look(files))
    except BadFile as error:
        return Answer(refused=str(error))


def limit_self() -> None:
    """This process gets little memory and time, and leaves no file behind, not even a core."""
    if sys.platform == "win32":
        return
    import resource

    for what, most in (
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(what, (bound, bound))
        except (OSError, ValueError):
            continue  # macOS knows no limit of address space; the time limits hold there


if __name__ == "__main__":
    main()
