"""Gemma 3 is told apart and refused with a reason."""

import pytest

from gemmarunner.models.config import ConfigError
from gemmarunner.models.hf_config import read_target_config


@pytest.mark.parametrize("model_type", ["gemma3", "gemma3_text"])
def test_gemma3_is_refused_with_the_reason(model_type) -> None:
    """The reader learns what is different, and what runs instead."""
    with pytest.raises(
        ConfigError, match="Gemma 3 model: it uses attention values as they are"
    ) as e:
        read_target_config({"model_type": model_type})

    assert "gemma4:" in str(e.value.fix)
