"""Which requests are let in, and how much they may write."""

from gemmad.api.errors import BadRequest, PromptTooLong
from gemmarunner.engine.events import EngineRequest


def check(request: EngineRequest, num_ctx: int, vocab_size: int) -> None:
    """Returns if `request` can be run.

    Raises:
        PromptTooLong: the prompt leaves no room for one token in the context.
        BadRequest: the prompt is empty or holds an id that is no token.
    """
    if len(request.tokens) + 1 > num_ctx:
        raise PromptTooLong(
            f"The prompt has {len(request.tokens)} tokens, but the context holds "
            f"{num_ctx} and the answer needs at least one.",
            fix="Shorten the prompt or load the model with a larger num_ctx.",
        )
    if not request.tokens:
        raise BadRequest("The prompt has no tokens.", fix="Send some text.")
    if min(request.tokens) < 0 or max(request.tokens) >= vocab_size:
        raise BadRequest(f"The prompt holds a token id outside 0 to {vocab_size - 1}.")


def room_for(request: EngineRequest, num_ctx: int) -> int:
    """How many tokens the answer may have: what was asked for, within the context."""
    asked = request.sampling.num_predict if request.max_tokens is None else request.max_tokens
    free = num_ctx - len(request.tokens)
    return free if asked < 0 else min(asked, free)
