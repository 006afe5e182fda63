"""`gemma list` as it mostly is, without click, whose import takes as long as all the rest."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from gemmacli.client import DaemonClient
from gemmacli.tables import stored
from gemmacli.transport import endpoint
from gemmad.api.errors import GemmaError
from gemmad.api.version import VERSION


def list_models(env: Mapping[str, str]) -> bool:
    """Whether the list was printed; nothing was where there is more to do or to say than that.

    Raises:
        OSError: it cannot be printed.
    """
    try:
        client = DaemonClient(endpoint(env))
        if client.version() != VERSION:
            return False
        models = client.models()["models"]
    except GemmaError:
        return False
    lines, notes = stored(models, datetime.now(UTC))
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()
    sys.stderr.write("".join(f"{note}\n" for note in notes))
    return True
