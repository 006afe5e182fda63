"""The real hub client in tests: allowed on line, with caches and tokens of the test's own."""

from pathlib import Path

import pytest


def go_online(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """huggingface_hub may dial, knows no token of the machine's user, and keeps files in `home`."""
    from huggingface_hub import close_session, constants

    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    close_session()
