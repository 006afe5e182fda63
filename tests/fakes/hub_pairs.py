"""Pairs on the fake hub, and the real daemon that pulls from there."""

import json
import zlib
from pathlib import Path

from tests.fakes.builtin_pair import CONFIG, DRAFTER_CONFIG, TEMPLATE, weights
from tests.fakes.daemon_process import DaemonProcess, NanoDaemon
from tests.fakes.hub.server import FakeHub

TARGET = "google/gemma-4-tiny-it"
MIB = 1 << 20


def add_pair(hub: FakeHub, repo: str = TARGET, nbytes: int = MIB, *, seed: int = 0) -> bytes:
    """Target and its assistant are on the hub; returns the target's weights of about `nbytes`."""
    data = bytearray(weights({"a": [nbytes // 2]}))
    for begin in range(4096, len(data) - 8, 65536):  # every part of every file is another
        data[begin : begin + 8] = (begin + seed + zlib.crc32(repo.encode())).to_bytes(8, "big")
    files = {
        "config.json": CONFIG,
        "generation_config.json": {"temperature": 1.0, "top_k": 64},
        "tokenizer.json": {"model": {"type": "BPE"}},
        "tokenizer_config.json": {},
    }
    small = {name: json.dumps(value).encode() for name, value in files.items()}
    texts = {"chat_template.jinja": TEMPLATE.encode(), "README.md": b"# Tiny", "evil.py": b"1/0"}
    hub.add(repo, {**small, **texts, "model.safetensors": bytes(data)})
    config = json.dumps(DRAFTER_CONFIG).encode()
    drafter = {"config.json": config, "model.safetensors": weights({"d": [50]})}
    hub.add(f"{repo}-assistant", drafter)
    return bytes(data)


class HubDaemon(DaemonProcess):
    """A daemon whose hub is the fake one."""

    def __init__(self, home: Path, hub: FakeHub, **runner: object) -> None:
        super().__init__(home, **runner)
        self._hub = hub

    @property
    def environment(self) -> dict[str, str]:
        own = {"HF_ENDPOINT": self._hub.url, "HF_HOME": str(self.home / "hf")}
        return super().environment | own


class RealHubDaemon(HubDaemon, NanoDaemon):
    """The same with real runners."""

    command = NanoDaemon.command
