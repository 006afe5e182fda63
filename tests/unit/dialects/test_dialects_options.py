"""Options: every row of the table at its borders."""

import math

import pytest

from gemmad.api.errors import BadRequest
from gemmad.dialects.ollama.options import IGNORED, SAMPLING, read_draft, read_options

NAN, INF = math.nan, math.inf
ODD = ["1", True, False, [], {}, NAN, INF, -INF, 2**63, -(2**63) - 1]
WHOLE_REFUSES = [0.5, 1e300]

# name: (accepted values, refused values beside ODD)
TABLE = {
    "temperature": ([0, 0.0, 1, 1.5, 100], [-1, -0.1, 100.1, 2**31]),
    "top_k": ([-1, 0, 1, 64, 64.0, 2**31 - 1], [-2, 2**31, *WHOLE_REFUSES]),
    "top_p": ([0, 0.5, 1], [-1, 1.1, 2**31]),
    "min_p": ([0, 0.5, 1], [-1, 1.1, 2**31]),
    "repeat_penalty": ([0.1, 1, 1.3, 100], [-1, 0, 101, 2**31]),
    "repeat_last_n": ([-1, 0, 64, 2**20], [-2, 2**20 + 1, 2**31, *WHOLE_REFUSES]),
    "presence_penalty": ([-1, 0, 1.5], [-101, 101, 2**31]),
    "frequency_penalty": ([-1, 0, 1.5], [-101, 101, 2**31]),
    "seed": ([-1, 0, 1, 2**31, 2**63 - 1], [-2, *WHOLE_REFUSES]),
    "num_predict": ([-2, -1, 1, 2**31 - 1], [-3, 0, 2**31, *WHOLE_REFUSES]),
    "num_ctx": ([16, 4096, 2**20], [-1, 0, 15, 2**20 + 1, 2**31, *WHOLE_REFUSES]),
    "draft_num_predict": ([0, 1, 8], [-1, 9, 2**31, *WHOLE_REFUSES]),
    "draft": ([0, 1, 8, "auto", "off"], [-1, 9, "on", "", "AUTO", *WHOLE_REFUSES]),
}


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, (good, _) in TABLE.items() for v in good]
)
def test_values_inside_the_range_are_accepted(name, value):
    """The borders belong to the range."""
    read_options({name: value})


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, (_, bad) in TABLE.items() for v in [*bad, *ODD]]
)
def test_values_outside_are_refused_by_name(name, value):
    """The message names the option, the fix says what is accepted."""
    with pytest.raises(BadRequest, match=name.removesuffix("_num_predict")) as caught:
        read_options({name: value})
    assert caught.value.fix.startswith("Use ")


def test_the_table_covers_every_numeric_option():
    """A new option must get its row."""
    assert set(TABLE) >= set(SAMPLING) - {"stop"}


@pytest.mark.parametrize(("given", "read"), [
    ({"seed": -1}, {"seed": None}), ({"top_k": -1}, {"top_k": 0}),
    ({"num_predict": -2}, {"num_predict": -1}), ({"stop": "x"}, {"stop": ("x",)}),
    ({"stop": ["x", "y"]}, {"stop": ("x", "y")}), ({"temperature": 1}, {"temperature": 1.0}),
    ({"temperature": None}, {}),
])  # fmt: skip
def test_ollamas_special_values_mean_what_they_mean_there(given, read):
    """-1 is a random seed, no limit, top_k off; null is not given."""
    assert read_options(given).sampling == read


@pytest.mark.parametrize("stop", [1, [1], [""], "", ["x"] * 17, ["x" * 257], {}, True])
def test_bad_stop_texts_are_refused(stop):
    """An empty stop would end every answer at once."""
    with pytest.raises(BadRequest, match="stop"):
        read_options({"stop": stop})


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_options_without_effect_here_are_accepted(name):
    """Clients send them; whatever they hold."""
    assert read_options({name: "anything"}).sampling == {}


@pytest.mark.parametrize(("name", "hint"), [
    ("temprature", "temperature"), ("top-k", "top_k"), ("zzz", "Known:"), ("x" * 5000, "Known:"),
])  # fmt: skip
def test_unknown_options_are_refused_with_the_nearest_name(name, hint):
    """A typo must not silently change nothing."""
    with pytest.raises(BadRequest) as caught:
        read_options({name: 1})
    assert hint in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_requests_own_draft_field_wins():
    """Over the option, and the option over Ollama's spelling."""
    assert read_options({"draft": 3}, "off").draft == "off"
    assert read_options({"draft": 3, "draft_num_predict": 5}).draft == 3
    assert read_options({"draft_num_predict": 0}).draft == "off"
    assert read_options({}).draft is None
    assert read_draft("auto") == "auto"


def test_loading_options_are_checked():
    """How a pair is loaded can be said with a request; a typing mistake is an error."""
    options = read_options({"quantize": "int4", "deterministic": True})

    assert (options.quantize, options.deterministic) == ("int4", True)
    for wrong in ({"quantize": "int3"}, {"quantize": 8}, {"deterministic": 1}):
        with pytest.raises(BadRequest, match=next(iter(wrong))):
            read_options(wrong)
