"""Templates are programs by strangers: they render prompts, and hurt nobody."""

from collections.abc import Iterator

import pytest

from gemmad.api.errors import BadRequest
from gemmarunner.renderer import TemplateRenderer

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].system('id') }}",
    "{{ self.__init__.__globals__.__builtins__.open('/etc/passwd').read() }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{{ messages.append(1) }}",
    "{% include '/etc/passwd' %}",
    "{% for %}",
    "{{ raise_exception('not like this') }}",
    "{{ 1 / 0 }}",
    "{{ messages['x'].y.z }}",
    "{{ range(1000000000) | list }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
]
BOMBS = [
    "{{ 'A' * 3000000000 }}",
    "{{ 'A' * 300000000 }}",
    "{{ '%2000000000d' % 1 }}",
    "{{ 'a'.ljust(2000000000) }}",
    "{{ 10 ** (10 ** 10) }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(999) %}AAAAAAAAAA{% endfor %}{% endfor %}",
    "{% set n = namespace(s='A') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
]


@pytest.fixture(scope="module")
def renderer() -> Iterator[TemplateRenderer]:
    """One worker for all, so that each test also shows that the one before did no harm."""
    renderer = TemplateRenderer(deadline_s=1.0)
    yield renderer
    renderer.close()


@pytest.mark.parametrize("template", ESCAPES + BOMBS)
def test_bad_template_is_an_error_and_the_next_one_renders(
    renderer: TemplateRenderer, template: str
) -> None:
    """Escapes, faults and bombs end in an error to their own request."""
    with pytest.raises(BadRequest, match="chat template failed"):
        renderer.render(template, {"messages": []})

    assert renderer.render("{{ messages | length }}", {"messages": []}) == "0"


@pytest.mark.parametrize(
    "template", ["{{ ''|attr('__class__')|attr('__mro__') }}", "{{ '%s'.__mod__.__class__ }}"]
)
def test_forbidden_attribute_is_nothing(renderer: TemplateRenderer, template: str) -> None:
    """Jinja takes some ways out of the sandbox for attributes that are not there."""
    assert renderer.render(template, {}) == ""


def test_templates_find_what_hugging_face_gives_them(renderer: TemplateRenderer) -> None:
    """Block trimming, loop controls, plain tojson, the date, and their own exceptions."""
    template = (
        "{% for i in range(9) %}\n  {% if i == 2 %}{% break %}{% endif %}\n{{ i }}\n{% endfor %}\n"
        "{{ {'a': '<é>'} | tojson }} {{ strftime_now('%Y') | length }}"
    )

    assert renderer.render(template, {}) == '0\n1\n{"a": "<é>"} 4'


def test_killed_worker_is_replaced() -> None:
    """A worker that died costs one error, not the runner."""
    renderer = TemplateRenderer()
    renderer.render("a", {})
    renderer._worker.kill()
    renderer._worker.wait()

    with pytest.raises(BadRequest, match="died"):
        renderer.render("a", {})

    assert renderer.render("a", {}) == "a"
    renderer.close()


def test_template_that_the_worker_has_is_not_sent_again(renderer: TemplateRenderer) -> None:
    """Only its variables are; another template in between is sent, and so is the first again."""
    size = "{{ messages | length }}"
    found = [renderer.render(size, {"messages": [0] * n}) for n in (1, 2)]
    found += [renderer.render("b", {}), renderer.render(size, {"messages": []})]

    assert found == ["1", "2", "b", "0"]


def test_prompts_that_are_wanted_at_once_come_in_order(renderer: TemplateRenderer) -> None:
    """Also when one of them fails, and when one ends the worker: the others are rendered."""
    template = (
        "{% if n == 1 %}{{ raise_exception('odd') }}{% endif %}"
        "{% for a in range(99999 if n == 3 else 0) %}{% for b in range(99999) %}{% endfor %}"
        "{% endfor %}{{ n }}"
    )

    found = list(renderer.render_all(template, [{"n": n} for n in range(5)]))

    assert [found[n] for n in (0, 2, 4)] == ["0", "2", "4"]
    assert [type(found[n]) for n in (1, 3)] == [BadRequest, BadRequest]
    assert "more than 1 s" in str(found[3])


def test_long_prompts_are_rendered_in_several_requests(renderer: TemplateRenderer) -> None:
    """More than one request holds comes back whole and in order."""
    prompts = [{"n": str(n) * 600_000} for n in range(4)]

    assert list(renderer.render_all("{{ n }}", prompts)) == [prompt["n"] for prompt in prompts]


def test_prompts_that_nobody_reads_spoil_no_later_one(renderer: TemplateRenderer) -> None:
    """Who leaves early takes its answers along."""
    unread = renderer.render_all("{{ n }}", [{"n": n} for n in range(3)])
    assert next(unread) == "0"

    unread.close()

    assert renderer.render("{{ n }}", {"n": 7}) == "7"
