"""Every setting, named once: flag, environment variable and file key follow from the field's name.

`keep_alive` is `--keep-alive`, then `GEMMA_KEEP_ALIVE`, then `keep_alive` in config.toml, then the
default. A malformed value anywhere stops start-up; nothing falls back silently.
"""

import argparse
import difflib
import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import platformdirs

from gemmad.api import paths
from gemmad.api.errors import GemmaError
from gemmad.api.version import VERSION
from gemmad.duration import ACCEPTED, parse_duration

APP = "gemmad"
FILE_NAME = "config.toml"


class ConfigError(GemmaError):
    """A setting is malformed; the daemon does not start (exit code 78)."""

    code = "bad_setting"


class Setting(NamedTuple):
    """What a field's annotation says of it; `read` raises ValueError with the accepted form."""

    read: Callable[[str], object]
    default: str
    about: str


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return read


def _choice(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return text

    return read


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("0 or 1")
    return text == "1"


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError:
        raise ValueError(ACCEPTED) from None


def _positive_duration(text: str) -> float:
    seconds = _duration(text)
    if not 1 <= seconds <= 86400:
        raise ValueError("a duration from 1s to 24h")
    return seconds


def _grace(text: str) -> float:
    seconds = _duration(text)
    if seconds > 86400:
        raise ValueError("a duration up to 24h; a pull that shall go on is detached")
    return seconds


_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGkmg]?)i?[Bb]?(?:/s)?")
_RATE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _rate(text: str) -> int | None:
    if text == "0":
        return None
    found = _RATE.fullmatch(text)
    rate = int(float(found[1]) * _RATE_UNITS[found[2].lower()]) if found else 0
    if rate < 1 << 10:
        raise ValueError("bytes a second such as 20M or 500K (at least 1K), or 0 for no limit")
    return rate


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGkmg]?)(?:i?[Bb])?")


def _reserve(text: str) -> int | None:
    if text == "auto":
        return None
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError("auto, or bytes such as 512M or 2GiB")
    return int(float(found[1]) * _RATE_UNITS[found[2].lower()])


def _limit(text: str) -> float:
    seconds = _duration(text)
    return float("inf") if seconds <= 0 else seconds


def _loopback(text: str) -> paths.TcpAddress:
    try:
        address = paths.tcp_address({"GEMMA_HOST": text})
    except GemmaError as error:
        raise ValueError(error.fix or "HOST:PORT") from None
    if address.host != "localhost" and not _is_loopback(address.host):
        raise ValueError(
            "a loopback address such as 127.0.0.1:11435: this version has no tokens, so it does "
            "not listen to other machines (put an authenticating proxy in front of it)"
        )
    return address


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _socket(text: str) -> Path | None:
    try:
        return paths.socket_path({"GEMMA_SOCKET": text}) if text else None
    except GemmaError as error:
        raise ValueError(f"{error.fix or error}") from None


def _directory(text: str) -> Path | None:
    return Path(text).expanduser().absolute() if text else None


@dataclass(frozen=True, slots=True)
class Config:
    """The settings as the daemon runs with them."""

    home: Annotated[
        Path | None, Setting(_directory, "", "directory of store, state, logs and socket together")
    ]
    socket: Annotated[Path | None, Setting(_socket, "", "path of the Unix socket")]
    host: Annotated[
        paths.TcpAddress, Setting(_loopback, "127.0.0.1:11435", "TCP address, loopback only")
    ]
    keep_alive: Annotated[float, Setting(_duration, "5m", "how long an idle model stays loaded")]
    max_loaded: Annotated[int, Setting(_whole(1, 64), "3", "models in memory at once")]
    max_queue: Annotated[int, Setting(_whole(1, 100_000), "512", "requests that may wait")]
    num_parallel: Annotated[
        int, Setting(_whole(1, 64), "1", "requests that one model answers at once")
    ]
    num_ctx: Annotated[
        int, Setting(_whole(16, 1 << 20), "4096", "context length when none is asked for")
    ]
    load_timeout: Annotated[
        float, Setting(_positive_duration, "5m", "how long a model may take to load")
    ]
    queue_timeout: Annotated[
        float, Setting(_positive_duration, "10m", "how long a request may wait for its model")
    ]
    request_timeout: Annotated[
        float, Setting(_limit, "0", "how long an answer may take, 0 = as long as it likes")
    ]
    reserve: Annotated[
        int | None,
        Setting(_reserve, "auto", "memory of each device and of the host that stays free"),
    ]
    cpu_fallback: Annotated[bool, Setting(_switch, "0", "load on the CPU what no GPU has room for")]
    fit_quantize: Annotated[
        str,
        Setting(
            _choice("none", "int8", "int4"), "none", "pack weights of models that do not fit else"
        ),
    ]
    draft: Annotated[str, Setting(_choice("auto", "off"), "auto", "speculative decoding")]
    device: Annotated[
        str, Setting(_choice("auto", "cpu", "cuda", "mps"), "auto", "where models run")
    ]
    dtype: Annotated[
        str, Setting(_choice("auto", "float32", "bfloat16"), "auto", "how weights are kept")
    ]
    threads: Annotated[int, Setting(_whole(0, 1024), "0", "CPU threads of a runner, 0 = all cores")]
    quantize: Annotated[
        str,
        Setting(_choice("none", "int8", "int4"), "none", "pack weights that are stored wider"),
    ]
    deterministic: Annotated[
        bool, Setting(_switch, "0", "answers never depend on what runs beside them, bit for bit")
    ]
    spare: Annotated[
        str,
        Setting(
            _choice("auto", "0", "1"),
            "auto",
            "keep a prepared process for the next model: auto = while 4 GiB of memory are free",
        ),
    ]
    pull_parallel: Annotated[
        int, Setting(_whole(1, 32), "4", "connections to one file's host while it is pulled")
    ]
    pull_rate: Annotated[
        int | None,
        Setting(_rate, "0", "bytes a second that all pulls take together, e.g. 20M; 0 = no limit"),
    ]
    pull_grace: Annotated[
        float,
        Setting(_grace, "10s", "how long a pull goes on after its last client left"),
    ]
    log_level: Annotated[
        str, Setting(_choice("debug", "info", "warning", "error"), "info", "log detail")
    ]

    @property
    def locations(self) -> "Locations":
        """Where everything lives."""
        return Locations.of(self.home, self.socket)


@dataclass(frozen=True, slots=True)
class Locations:
    """The daemon's directories and its socket."""

    store: Path
    state: Path
    logs: Path
    socket: Path

    @classmethod
    def of(cls, home: Path | None, socket: Path | None) -> "Locations":
        """All under `home` when given, else where the platform keeps such things.

        Raises:
            BadRequest: the socket's path is too long.
        """
        if home:
            listen = socket or paths.socket_path({"GEMMA_HOME": str(home)})
            return cls(home / "store", home / "state", home / "logs", listen)
        data, state = platformdirs.user_data_path(APP), platformdirs.user_state_path(APP)
        logs = platformdirs.user_log_path(APP)
        return cls(data / "store", state, logs, socket or paths.socket_path())


def settings() -> dict[str, Setting]:
    """Every setting by its field's name."""
    hints = get_type_hints(Config, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def load_config(argv: Sequence[str], env: Mapping[str, str]) -> Config:
    """The settings from flags, environment, file and defaults, in this order.

    Raises:
        ConfigError: a value is malformed or a file key unknown; the message names it.
        SystemExit: --help, --version, or an unknown flag.
    """
    flags = vars(_parser().parse_args(argv))
    given = {name: value for name, value in flags.items() if value is not None}
    file = _file(_home(given, env))
    found: dict[str, Any] = {}
    for name, setting in settings().items():
        value, source = _first(name, given, env, file, setting.default)
        found[name] = _read(setting, value, source)
    return _checked(Config(**found))


def _first(
    name: str,
    flags: Mapping[str, str],
    env: Mapping[str, str],
    file: Mapping[str, str],
    default: str,
) -> tuple[str, str]:
    variable = env_name(name)
    if name in flags:
        return flags[name], flag_name(name)
    if env.get(variable):  # set but empty counts as unset, as in a shell profile that clears it
        return env[variable].strip(), variable
    if name in file:
        return file[name], f"{name} in {FILE_NAME}"
    return default, "default"


def _read(setting: Setting, value: str, source: str) -> object:
    try:
        return setting.read(value)
    except ValueError as error:
        raise ConfigError(
            f"The setting {source} is {value[:200]!r}.", fix=f"Use {error}."
        ) from None


def _checked(config: Config) -> Config:
    try:
        _ = config.locations
    except GemmaError as error:
        raise ConfigError(error.message, fix=error.fix) from error
    return config


def env_name(name: str) -> str:
    """The environment variable of a setting."""
    return f"GEMMA_{name.upper()}"


def flag_name(name: str) -> str:
    """The command-line flag of a setting."""
    return f"--{name.replace('_', '-')}"


def _home(flags: Mapping[str, str], env: Mapping[str, str]) -> Path | None:
    return _directory(flags.get("home", "")) or paths.home_override(env)


def _file(home: Path | None) -> dict[str, str]:
    path = (home or platformdirs.user_config_path(APP)) / FILE_NAME
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}.", fix="Correct or remove it."
        ) from error
    known = [name for name in settings() if name != "home"]
    for name, value in values.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            fix = f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(known)}."
            raise ConfigError(f"{path} has an unknown setting {name!r}.", fix=fix)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ConfigError(f"{name} in {path} is {value!r}.", fix="Use a text or a number.")
    return {name: str(value) for name, value in values.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=APP,
        description="Keeps Gemma 4 models with their drafters and serves them on a local socket.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{APP} {VERSION}")
    for name, setting in settings().items():
        shown = f" (default {setting.default})" if setting.default else ""
        text = f"{setting.about}{shown}; {env_name(name)}"
        parser.add_argument(flag_name(name), metavar="VALUE", help=text)
    return parser
