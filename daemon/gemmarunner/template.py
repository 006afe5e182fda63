"""Renders a chat template, which is a program by a model's author, in Jinja's immutable sandbox.

The sandbox keeps a template from reaching Python. It does not bound its time or memory: the process
that `template_worker` runs in does.
"""

import functools
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_OUTPUT_CHARACTERS = 8 * 1024 * 1024


def render(source: str, variables: Mapping[str, object]) -> str:
    """The prompt that the template `source` writes for `variables`.

    Raises:
        TemplateError: bad syntax, a forbidden operation, the template's own `raise_exception`.
        ValueError: more output than a prompt can need.
    """
    pieces: list[str] = []
    size = 0
    for piece in _compiled(source).generate(variables):
        size += len(piece)
        if size > MAX_OUTPUT_CHARACTERS:
            raise ValueError(f"it wrote more than {MAX_OUTPUT_CHARACTERS} characters")
        pieces.append(piece)
    return "".join(pieces)


@functools.lru_cache(maxsize=4)
def _compiled(source: str) -> Template:
    return _environment().from_string(source)


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    """What Hugging Face's chat templates are written for."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[loopcontrols],
        autoescape=False,  # the output is a prompt, not HTML
    )
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    environment.filters["tojson"] = _tojson
    return environment


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _tojson(value: Any, indent: int | None = None) -> str:
    """Plain JSON: Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
