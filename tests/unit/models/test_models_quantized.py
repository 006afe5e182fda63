"""What quantized checkpoints are refused, before their weights are opened, and with what advice."""

import copy
import json

import pytest

from gemmad.api.errors import LoadFailed
from gemmarunner.models.loader import load_drafter, load_target
from gemmarunner.models.quantized import check_quantization, is_compressed
from tests.unit.models.test_models_compressed import W4A16


def changed(**weights: object) -> dict[str, object]:
    """The w4a16 config with other weights."""
    config = copy.deepcopy(W4A16)
    config["config_groups"]["group_0"]["weights"] |= weights
    return {"quantization_config": config}


@pytest.mark.parametrize("settings", [{}, changed(), changed(num_bits=8, strategy="channel")])
def test_what_can_be_read_passes(settings) -> None:
    """Plain weights, and integers of 4 and 8 bits by group and by row."""
    check_quantization(settings)

    assert is_compressed(settings) == bool(settings)


@pytest.mark.parametrize(
    "method", ["gemma", "awq", "gptq", "bitsandbytes", "fp8", "mxfp4", "torchao", "bitnet"]
)
def test_other_methods_name_what_to_use(method) -> None:
    """The user reads which repositories hold the same model in a form that runs."""
    with pytest.raises(LoadFailed, match=method) as caught:
        check_quantization({"quantization_config": {"quant_method": method}})

    assert "-it-qat-q4_0-gguf" in caught.value.fix
    assert "-it-qat-w4a16-ct" in caught.value.fix


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (changed(type="float"), "type"),
        (changed(num_bits=3), "num_bits"),
        (changed(strategy="block"), "strategy"),
        (changed(dynamic=True), "dynamic"),
        (changed(actorder="group"), "actorder"),
        ({"quantization_config": W4A16 | {"kv_cache_scheme": {"num_bits": 8}}}, "kv_cache"),
        ({"quantization_config": W4A16 | {"transform_config": {"R1": {}}}}, "transform"),
        ({"quantization_config": W4A16 | {"format": "marlin-24"}}, "marlin"),
        ({"quantization_config": W4A16 | {"config_groups": {}}}, "config_groups"),
        ({"quantization_config": "w4a16"}, "object"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "awq"),
    ],
)
def test_other_compressed_tensors_are_refused(settings, told) -> None:
    """What the tensors alone would not show is never ignored."""
    with pytest.raises(LoadFailed, match=told):
        check_quantization(settings)


def test_quantized_activations_are_refused() -> None:
    """Activations kept wide would give other numbers than those measured."""
    settings = changed()
    settings["quantization_config"]["config_groups"]["group_0"]["input_activations"] = {
        "num_bits": 8
    }

    with pytest.raises(LoadFailed, match="input_activations"):
        check_quantization(settings)


@pytest.mark.parametrize("load", [load_target, load_drafter])
def test_refused_before_weights_are_opened(load, tmp_path) -> None:
    """There are none here, and still the reason is the quantization."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"quantization_config": {"quant_method": "gemma"}}))

    with pytest.raises(LoadFailed, match="quantized for phones"):
        load({"config.json": path}, "cpu")
