"""A JSON object, as the daemon sends and takes them."""

from typing import Any

Json = dict[str, Any]
