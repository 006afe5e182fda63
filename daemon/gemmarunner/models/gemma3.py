"""Tells that Gemma 3 is not run, and what it would take.

Most of it is Gemma 4's decoder under another configuration: norms of 1 + w, the scores' scale in
the queries' norm, layer scalars of 1, six layers a pattern. But Gemma 4 normalises values, and
Gemma 3 does not; no configuration and no change of the weights takes that norm away.
"""

from gemmarunner.models.config import ConfigError

MODEL_TYPES = ("gemma3", "gemma3_text")


def refused() -> ConfigError:
    """The error for a Gemma 3 model, of whatever format."""
    return ConfigError(
        "This is a Gemma 3 model: it uses attention values as they are, which this decoder, made "
        "for Gemma 4, always normalises.",
        fix="Use a Gemma 4 model, such as gemma4:e2b or gemma4:e4b.",
    )
