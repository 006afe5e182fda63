"""What a user may set for an answer, and the request that follows from it; pure."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from gemmacli.json_object import Json
from gemmad.api.errors import BadRequest

PARAMETERS: dict[str, Callable[[str], object]] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repeat_penalty": float,
    "repeat_last_n": int,
    "presence_penalty": float,
    "frequency_penalty": float,
    "seed": int,
    "num_ctx": int,
    "num_predict": int,
    "stop": str,
    "quantize": str,
}


@dataclass(slots=True)
class Settings:
    """Wishes for answers; None and empty mean that the model's own defaults hold."""

    options: Json = field(default_factory=dict)
    system: str | None = None
    think: bool | None = None
    draft: str | int | None = None
    keep_alive: str | int | None = None
    output_format: str | Json | None = None
    raw: bool = False

    def generate(self, model: str, prompt: str) -> Json:
        """A request for one answer to one prompt."""
        request = {**self._common(model), "prompt": prompt}
        if self.system is not None:
            request["system"] = self.system
        if self.raw:
            request["raw"] = True
        return request

    def chat(self, model: str, messages: list[Json]) -> Json:
        """A request for the next answer of a conversation."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return {**self._common(model), "messages": system + messages}

    def load(self, model: str) -> Json:
        """A request that only loads the model, with the context length that answers will use."""
        return {**self._common(model), "prompt": ""}

    def _common(self, model: str) -> Json:
        wishes = {
            "options": self.options or None,
            "think": self.think,
            "draft": self.draft,
            "keep_alive": self.keep_alive,
            "format": self.output_format,
        }
        return {"model": model} | {name: wish for name, wish in wishes.items() if wish is not None}


def parameter(name: str, text: str) -> object:
    """The value of a sampling parameter as the daemon takes it.

    Raises:
        BadRequest: there is no such parameter, or the text is not a value of its type.
    """
    convert = PARAMETERS.get(name)
    if convert is None:
        known = ", ".join(PARAMETERS)
        raise BadRequest(f"There is no parameter {name!r}.", fix=f"Known are: {known}.")
    try:
        return convert(text)
    except ValueError:
        kind = "a whole number" if convert is int else "a number"
        raise BadRequest(f"Parameter {name} is {text!r}, but must be {kind}.") from None


def draft_mode(text: str) -> str | int:
    """`auto`, `off` or a depth.

    Raises:
        BadRequest: the text is none of them.
    """
    if text in ("auto", "off"):
        return text
    if text.isdecimal():
        return int(text)
    raise BadRequest(f"{text!r} is not auto, off or a depth such as 4.")


def keep_alive(text: str) -> str | int:
    """Seconds as a number, anything else (`5m`) as the daemon reads it."""
    return int(text) if text.removeprefix("-").isdecimal() else text


def output_format(text: str) -> str | Json:
    """`json`, or a JSON schema as an object.

    Raises:
        BadRequest: the text begins like an object but is not JSON.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        schema: Json = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"The schema given to --format is not JSON: {error}.") from error
    return schema
