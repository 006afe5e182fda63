"""The built-in pair: planned from its directory."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmad.api.errors import PullFailed
from gemmad.core import ModelName, digest_of
from gemmad.sources.builtin import BuiltinSource
from gemmad.sources.describe import capabilities, details, model_info
from gemmad.sources.safetensors_header import BadHeader, WeightFacts, size_label, weight_facts
from tests.fakes.builtin_pair import TEMPLATE, weights, write_pair

NANO = ModelName.parse("nano")


@pytest.fixture
def pair(tmp_path):
    return write_pair(tmp_path / "nano")


def test_a_plan_names_every_file_with_size_and_digest(pair):
    """Target, drafter and documents; what is not a model file stays out."""
    (pair / "target" / "notes.py").write_text("print()")
    plan = BuiltinSource(pair).plan(NANO)

    found = {f"{file.kind}/{file.name}": file.entry for file in plan.files}
    assert "target/notes.py" not in found
    assert {"target/model.safetensors", "drafter/model.safetensors", "document/LICENSE"} <= set(
        found
    )
    data = (pair / "target" / "model.safetensors").read_bytes()
    assert found["target/model.safetensors"].digest == digest_of(data)
    assert found["target/model.safetensors"].size == len(data)


def test_the_manifest_says_what_the_pair_is(pair):
    """Sizes, context, template and defaults come from the files."""
    manifest = BuiltinSource(pair).plan(NANO).manifest(NANO, "2026-01-01T00:00:00Z")

    assert manifest.details.parameter_size == "1.02K"
    assert manifest.details.quantization_level == "BF16"
    assert manifest.details.capabilities == ("completion", "tools", "thinking")
    assert manifest.parameters == {"temperature": 0.5, "top_k": 32}
    assert manifest.template == digest_of(TEMPLATE.encode())
    assert manifest.drafter_parameter_size == "50"
    assert manifest.origin.source == "builtin:nano"


def test_a_target_without_a_drafter_is_a_pair_of_one(tmp_path):
    """The drafter is optional."""
    plan = BuiltinSource(write_pair(tmp_path / "nano", drafter=False)).plan(NANO)

    assert plan.manifest(NANO, "").drafter is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(pair, name):
    """The installation is at fault and the message says how."""
    (pair / "target" / name).unlink()

    with pytest.raises(PullFailed, match=name):
        BuiltinSource(pair).plan(NANO)


def test_only_nano_is_known(pair):
    """In any case, with or without its tag."""
    source = BuiltinSource(pair)

    assert source.knows(ModelName.parse("Nano:latest"))
    assert not source.knows(ModelName.parse("nano:other"))


def test_weights_are_counted_from_the_header_alone(tmp_path):
    """Shapes are multiplied, the commonest type by parameters wins."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(weights({"a": [3, 5], "b": []}))

    assert weight_facts(path) == WeightFacts(16, "BF16")


@settings(max_examples=200, deadline=None)
@given(st.one_of(
    st.binary(max_size=64),
    st.binary(max_size=64).map(lambda b: struct.pack("<Q", len(b)) + b),
    st.sampled_from([b"{}", b'{"a":1}', b'{"a":{"dtype":"F32","shape":[-1]}}', b"[" * 5000])
    .map(lambda b: struct.pack("<Q", len(b)) + b),
    st.just(struct.pack("<Q", 1 << 62)),
))  # fmt: skip
def test_hostile_headers_are_refused(tmp_path_factory, data):
    """With BadHeader and nothing else, and without reading what they announce."""
    path = tmp_path_factory.mktemp("h") / "w.safetensors"
    path.write_bytes(data)

    with pytest.raises(BadHeader):
        weight_facts(path)


@pytest.mark.parametrize(
    ("count", "label"), [(999, "999"), (13_700_000, "13.7M"), (4_500_000_000, "4.5B")]
)
def test_counts_read_as_people_write_them(count, label):
    """Three digits and a unit."""
    assert size_label(count) == label


def test_a_config_without_text_config_is_the_text_config():
    """Both spellings of the checkpoint are read."""
    flat = {"hidden_size": 8, "max_position_embeddings": 16}
    facts = WeightFacts(10, "F32")

    assert details(flat, facts, "") == details({"text_config": flat}, facts, "")
    assert model_info(flat, facts, "x")["gemma4.embedding_length"] == 8


def test_abilities_follow_the_template():
    """A template that cannot write tools does not offer them."""
    assert capabilities("") == ("completion",)
    assert capabilities("<|tool>") == ("completion", "tools")
