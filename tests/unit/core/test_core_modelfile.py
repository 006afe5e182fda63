"""Modelfiles: Ollama's grammar is read, everything is written so that it reads the same."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmad.api.instructions import WORDS
from gemmad.api.modelfile import Description, ModelfileError, parse, render
from gemmad.api.parameters import READERS, as_text, typed

EXAMPLE = '''\
# A pair with everything.
from gemma4:e4b
  Draft  hf.co/google/gemma-4-e4b-it-assistant
PARAMETER temperature 0.5   # not a comment
PARAMETER stop "  User:"
parameter STOP <turn|>
SYSTEM """
You are "nano".
  Indented."""
TEMPLATE "one
two"
MESSAGE User What is it?
MESSAGE assistant "A model."
LICENSE Apache-2.0
LICENSE """MIT"""
ADAPTER ./lora
RENDERER gemma4
REQUIRES 0.14.0
'''

ANY = st.text(alphabet=st.one_of(st.characters(), st.sampled_from('"\n\r #\t\ufeff')))
REFERENCE = ANY.filter(lambda text: text.strip(" \t\r\n") == text and text.strip() != "")
PARAMETERS = st.dictionaries(
    st.sampled_from(["temperature", "top_p"]), st.floats(0, 1).map(str)
) | st.fixed_dictionaries({"stop": st.lists(ANY, min_size=1), "seed": st.integers().map(str)})
OPTIONAL = st.none() | ANY


@st.composite
def descriptions(draw: st.DrawFn) -> Description:
    """Any description whose places differ from one another."""
    places = draw(st.lists(st.uuids().map(str) | st.just("gemma4:e4b"), min_size=4, unique=True))
    halves = st.none() | st.sampled_from(["none", places[1], tuple(places[1:3])])
    return Description(
        from_=(draw(REFERENCE) + "/" + places[0], *places[4:]),
        draft=draw(halves),
        adapter=draw(st.none() | st.just(places[3])),
        parameters=draw(PARAMETERS),
        system=draw(OPTIONAL),
        template=draw(OPTIONAL),
        licences=tuple(draw(st.lists(ANY, max_size=3))),
        messages=tuple(draw(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), ANY)))),
        requires=draw(OPTIONAL),
        renderer=draw(OPTIONAL),
        parser=draw(OPTIONAL),
    )


def test_every_instruction_is_read():
    """In any case, quoted or not."""
    read = parse(EXAMPLE.replace("0.5   # not a comment", "0.5"))

    assert read == Description(
        from_=("gemma4:e4b",),
        draft="hf.co/google/gemma-4-e4b-it-assistant",
        adapter="./lora",
        parameters={"temperature": "0.5", "stop": ["  User:", "<turn|>"]},
        system='\nYou are "nano".\n  Indented.',
        template="one\ntwo",
        licences=("Apache-2.0", "MIT"),
        messages=(("user", "What is it?"), ("assistant", "A model.")),
        requires="0.14.0",
        renderer="gemma4",
    )


@given(descriptions())
@settings(max_examples=60, deadline=None)
def test_what_is_rendered_reads_the_same(description):
    """Whatever the texts hold: quotes, lines that end in quotes, blanks, marks."""
    assert parse(render(description)) == description


@pytest.mark.slow
@given(descriptions())
@settings(max_examples=2_000, deadline=None)
def test_all_that_is_rendered_reads_the_same(description):
    """The same, more often."""
    assert parse(render(description)) == description


@pytest.mark.parametrize(
    "system", ['"', '"""', '"""\n"""', 'a"""  \nFROM x', "\r\n", "", ' "', "#"]
)
def test_awkward_texts_survive(system):
    """Also those that Ollama's grammar cannot hold."""
    description = Description(("nano",), system=system)

    assert parse(render(description)) == description


def test_plain_texts_are_written_as_ollama_reads_them():
    """Nothing of ours is in them."""
    description = Description(("a.gguf", "b.gguf"), draft="none", system='Say "hi"\nor not.')

    assert render(description) == (
        'FROM a.gguf\nFROM b.gguf\nDRAFT none\nSYSTEM """Say "hi"\nor not."""\n'
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_bytes_are_read_by_their_mark(encoding):
    """As editors of three systems save them; line ends too."""
    assert parse("FROM nano\r\nSYSTEM Grüß.\r\n".encode(encoding)).system == "Grüß."


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", None, "no FROM"),
        ("FROM a\nSYSTM x", 2, "Did you mean SYSTEM?"),
        ("FROM", 1, "no value after FROM"),
        ("FROM a\nPARAMETER seed", 2, "no value after PARAMETER seed"),
        ("FROM a\nPARAMETER temprature 1", 2, "Did you mean temperature?"),
        ("FROM a\nPARAMETER seed x", 2, "a whole number"),
        ("FROM a\nPARAMETER quantize q4_0", 2, "int8 or int4"),
        ("FROM a\n\nMESSAGE tool x", 3, "system, user, assistant"),
        ('FROM a\nSYSTEM """x\ny', 2, "nothing closes"),
        ("FROM a\nDRAFT ./a/", 2, "which FROM names too"),
        ("FROM a.gguf\nDRAFT A/../a.gguf", 2, "which FROM names too"),
        ("FROM a\nFROM a", 2, "which FROM names too"),
        ("FROM a\nDRAFT b\nDRAFT none", 3, "refuses the drafter"),
        ("FROM a\nADAPTER b\nADAPTER c", 3, "one"),
        ('FROM ""', 1, "empty FROM"),
        ("CONTINUE x", 1, "continues nothing"),
        (b"FROM \xff\xfe\xfd", None, "UTF-8"),
        ("FROM " + "a" * (4 << 20), None, "longer than"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text, line, says):
    """And with what to write instead."""
    with pytest.raises(ModelfileError) as raised:
        parse(text)

    assert raised.value.line == line
    assert says in str(raised.value)


def test_a_name_may_give_both_halves():
    """A pair in the store has a drafter of its own."""
    assert parse("FROM nano\nDRAFT nano").draft == "nano"


def test_what_has_no_effect_is_noted():
    """It is accepted, since Ollama's Modelfiles have it."""
    read = parse(
        "FROM a\nPARAMETER num_gpu 99\nPARSER gemma4\nTEMPLATE {{ .Prompt }}\nPARAMETER seed 1"
    )

    assert (read.values, read.chat_template) == ({"seed": 1}, None)
    assert [note.split()[0] for note in read.notes] == ["PARSER", "TEMPLATE", "PARAMETER"]
    assert parse("FROM a\nTEMPLATE {{ messages[0].content }}").chat_template is not None


def test_parameters_are_typed_and_written_back():
    """A manifest keeps values, a Modelfile texts."""
    texts = {"temperature": "0.7", "top_k": "64", "deterministic": "true", "stop": ["a"]}
    texts |= {"draft": "auto", "quantize": "int4"}

    assert typed(texts) == {**texts, "temperature": 0.7, "top_k": 64, "deterministic": True}
    assert as_text(typed(texts)) == texts


def fuzzed(chance: random.Random) -> str:
    """A text made of what Modelfiles are made of, and of noise."""
    pieces = [*WORDS, *READERS, "stop", '"', '"""', "\n", "\n", "\r", " ", " ", "#", "none", "a"]
    pieces += ["user", "1", "0.5", "\x00", "\u2028", "\ufeff", "é", "{{ .P }}", "\ud800"]
    body = "".join(chance.choice(pieces) for _ in range(chance.randrange(60)))
    return chance.choice(["", "FROM x\n", EXAMPLE[: chance.randrange(len(EXAMPLE))]]) + body


def fuzz(count: int) -> int:
    """How many of `count` texts were Modelfiles; each of them is read the same when rendered."""
    chance, read = random.Random(count), 0
    for _ in range(count):
        try:
            description = parse(fuzzed(chance))
        except ModelfileError as error:
            json.dumps(str(error))
            continue
        read += 1
        assert parse(render(description)) == description
    return read


def test_noise_is_an_error_of_its_own_kind():
    """Never another exception; some of it is a Modelfile."""
    assert fuzz(2_000) > 20


@pytest.mark.slow
def test_much_noise_is_an_error_of_its_own_kind():
    """50,000 texts."""
    assert fuzz(50_000) > 500
