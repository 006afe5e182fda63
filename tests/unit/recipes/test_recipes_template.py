"""Templates that a Modelfile brings."""

import pytest

from gemmad.api.errors import BadRequest
from gemmad.recipes.template import MAX_BYTES, check_template

GEMMA = "{{ bos_token }}{%- for message in messages -%}{{ message['content'] }}{%- endfor %}"


@pytest.mark.parametrize("text", [GEMMA, "", "{# .Prompt #}{{ x }}", "plain", "{{ iffy }}"])
def test_jinja_is_taken(text):
    """It is parsed and never run here."""
    check_template(text)


@pytest.mark.parametrize("text", [
    "{{ .Prompt }}", "{{- if .System }}x{{ end }}", "{{range .Messages}}", "{{ $x := 1 }}",
    "{{- with .Tools }}",
])  # fmt: skip
def test_a_go_template_is_refused_with_the_reason(text):
    """As in Ollama's Modelfiles: it says what to write instead."""
    with pytest.raises(BadRequest, match=r"Go's language.*Jinja"):
        check_template(text)


@pytest.mark.parametrize(("text", "word"), [
    ("{% for x %}", "line 1"), ("{{ x", "line 1"), ("{{" + "(" * 20_000, "Jinja|deeply"),
    ("x" * (MAX_BYTES + 1), "larger"),
])  # fmt: skip
def test_what_cannot_be_rendered_is_refused_at_once(text, word):
    """At the creation, not at the first question."""
    with pytest.raises(BadRequest, match=word):
        check_template(text)
