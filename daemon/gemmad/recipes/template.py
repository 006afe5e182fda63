"""Checks the chat template that a Modelfile brings: Jinja of a bounded size, not Go's; pure."""

import re

from gemmad.api.errors import BadRequest

MAX_BYTES = 256 << 10
# What Ollama's templates begin with: fields with a leading dot, and statements in double braces.
_GO = re.compile(r"\{\{-?\s*(?:\.|\$|(?:if|else|end|range|with|block|define|template)\b)")
_FIX = "Write it in Jinja, as chat_template.jinja of the model's repository, or leave TEMPLATE out."


def check_template(text: str) -> None:
    """`text` is a template that the renderer can read.

    Raises:
        BadRequest: it is a Go template, too large, or no Jinja; the message says which.
    """
    if len(text.encode()) > MAX_BYTES:
        raise BadRequest(f"The template is larger than {MAX_BYTES} bytes.", fix=_FIX)
    if found := _GO.search(text):
        raise BadRequest(
            f"The template is written in Go's language ({found[0][:40]!r}), which is not Gemma's.",
            fix=_FIX,
        )
    import jinja2  # 4 MB that a daemon without creations does without

    try:
        jinja2.Environment(autoescape=False).parse(text)  # noqa: S701  (parsed here, never run)
    except jinja2.TemplateSyntaxError as error:
        why = f"line {error.lineno}: {error.message}"
        raise BadRequest(f"The template is no Jinja ({why}).", fix=_FIX) from None
    except RecursionError:
        raise BadRequest("The template is nested too deeply.", fix=_FIX) from None
