"""Settings: precedence, and no malformed value gets through."""

import math
from pathlib import Path

import pytest

from gemmad.config import ConfigError, env_name, flag_name, load_config, settings


@pytest.fixture
def home(tmp_path):
    return tmp_path


def load(home, *argv, file="", **env):
    if file:
        (home / "config.toml").write_text(file)
    return load_config(argv, {"GEMMA_HOME": str(home)} | env)


def test_defaults_hold_when_nothing_is_said(home):
    """Everything lives under GEMMA_HOME; the rest is as documented."""
    config = load(home)

    assert (config.keep_alive, config.max_loaded, config.max_queue) == (300.0, 3, 512)
    assert config.host == ("127.0.0.1", 11435)
    assert config.locations.store == home / "store"
    assert config.locations.socket == home / "run" / "gemmad.sock"


def test_flags_beat_environment_beats_file_beats_default(home):
    """Each layer is seen only where the ones before it are silent."""
    file = 'keep_alive = "1h"\nmax_loaded = 7\nnum_ctx = 1024'
    config = load(
        home, "--keep-alive", "1m", file=file, GEMMA_KEEP_ALIVE="2m", GEMMA_MAX_LOADED="9"
    )

    assert (config.keep_alive, config.max_loaded, config.num_ctx) == (60.0, 9, 1024)


def test_forever_is_a_keep_alive(home):
    """-1 means that idle models stay."""
    assert load(home, GEMMA_KEEP_ALIVE="-1").keep_alive == math.inf


BAD = {
    "keep_alive": ["soon", "5 minutes", "nan", "1d"],
    "max_loaded": ["0", "-1", "many", "1.5", "1e3", str(2**63)],
    "max_queue": ["0", "x"],
    "num_parallel": ["0", "1000"],
    "num_ctx": ["0", "15", str(2**31)],
    "load_timeout": ["0", "-1", "forever"],
    "draft": ["on", "3"],
    "device": ["gpu"],
    "dtype": ["int4"],
    "threads": ["-1"],
    "quantize": ["int3", "bf16"],
    "deterministic": ["yes", "2"],
    "spare": ["on", "2"],
    "pull_parallel": ["0", "33", "x"],
    "pull_rate": ["fast", "-1M", "10", "1T", "nan"],
    "pull_grace": ["soon", "-1", "2d", "25h"],
    "log_level": ["loud"],
    "host": ["127.0.0.1:0", "127.0.0.1:99999", "localhost:x"],
    "socket": ["/" + "x" * 200],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in BAD.items() for v in vs])
def test_a_malformed_value_is_named_with_what_is_accepted(home, name, value):
    """Wherever it comes from; nothing falls back silently."""
    for source, call in [
        (env_name(name), lambda: load(home, **{env_name(name): value})),
        (flag_name(name), lambda: load(home, f"{flag_name(name)}={value}")),
        (name, lambda: load(home, file=f'{name} = "{value}"')),
    ]:
        with pytest.raises(ConfigError) as caught:
            call()
        assert source in caught.value.message
        assert value[:100] in caught.value.message
        assert caught.value.fix


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "0.0.0.0:11435", "[::]:1", "192.168.1.2", "example.com", "10.0.0.1"]
)
def test_no_environment_variable_exposes_the_daemon(home, host):
    """Only loopback addresses are listened on, and the message says so."""
    with pytest.raises(ConfigError, match="loopback"):
        load(home, GEMMA_HOST=host)


@pytest.mark.parametrize(("host", "address"), [
    ("127.0.0.1", ("127.0.0.1", 11435)), ("localhost:8080", ("localhost", 8080)),
    ("[::1]:99", ("::1", 99)), ("http://127.0.0.1:5", ("127.0.0.1", 5)), (":77", ("127.0.0.1", 77)),
])  # fmt: skip
def test_loopback_addresses_are_accepted(home, host, address):
    """In the forms people write them."""
    assert load(home, GEMMA_HOST=host).host == address


@pytest.mark.parametrize(
    "file",
    ["keep_alive =", "\xff", "keep_alife = '5m'", "max_loaded = true", "x = 1", "max_loaded = [1]"],
)
def test_a_bad_file_stops_the_start(home, file):
    """Syntax, unknown names and wrong types, each with the file's path."""
    with pytest.raises(ConfigError, match=r"config\.toml"):
        load(home, file=file)


def test_every_setting_is_in_the_help(home, capsys):
    """With flag and variable, from the one place it is named."""
    with pytest.raises(SystemExit) as stopped:
        load(home, "--help")

    text = capsys.readouterr().out
    assert stopped.value.code == 0
    for name in settings():
        assert flag_name(name) in text
        assert env_name(name) in text


def test_without_a_home_the_platform_decides(monkeypatch, tmp_path):
    """Data, state and logs are where the platform keeps such things."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    config = load_config([], {"GEMMA_SOCKET": "/tmp/g.sock"})

    assert config.locations.store == tmp_path / "data" / "gemmad" / "store"
    assert config.locations.socket == Path("/tmp/g.sock")


@pytest.mark.parametrize(("text", "rate"), [
    ("0", None), ("20M", 20 << 20), ("500k", 500 << 10), ("1.5GiB/s", 3 << 29), ("2048", 2048),
    ("10 MB/s", 10 << 20),
])  # fmt: skip
def test_a_rate_is_bytes_a_second_with_units(home, text, rate):
    """As people write them; 0 is no limit."""
    assert load(home, GEMMA_PULL_RATE=text).pull_rate == rate
