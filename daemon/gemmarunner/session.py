"""One request in the runner: from the tokens the engine chose to what its user gets."""

from collections.abc import Iterable

from gemmad.wire import Delta, Generate
from gemmarunner.chat import Prompt
from gemmarunner.detokenize import Detokenizer, Vocabulary
from gemmarunner.parse import Parsed, StreamParser
from gemmarunner.stopper import Stopper


class Session:
    """Text, thoughts and calls of one answer. A raw request gets the text as it is, tags and all.

    Stop strings are looked for in everything the model writes, thoughts too, as Ollama does.
    """

    def __init__(self, request: Generate, prompt: Prompt, vocabulary: Vocabulary) -> None:
        self.request = request
        self.context = list(prompt.tokens)  # of prompt and answer, for the final frame
        self._detokenizer = Detokenizer(vocabulary)
        self._stopper = Stopper(request.sampling.stop)
        self._parser = None if request.prompt is not None else StreamParser(request.tools)
        if self._parser:
            self._parser.start_inside(prompt.text)

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the answer, so that further tokens are of no use."""
        return self._stopper.stopped

    def on_tokens(self, tokens: Iterable[int]) -> Delta | None:
        """The frame for what `tokens` made certain, if there is anything to show."""
        text = ""
        for token in tokens:
            if self.stopped:
                break
            self.context.append(token)
            text += self._stopper.feed(self._detokenizer.push(token))
        return self._delta(self._parser.feed(text) if self._parser else Parsed(text))

    def close(self) -> Delta | None:
        """The frame for what was held back."""
        text = self._stopper.feed(self._detokenizer.close()) + self._stopper.close()
        if not self._parser:
            return self._delta(Parsed(text))
        first, last = self._parser.feed(text), self._parser.close()
        return self._delta(
            Parsed(
                first.text + last.text,
                first.thinking + last.thinking,
                first.tool_calls + last.tool_calls,
            )
        )

    def _delta(self, parsed: Parsed) -> Delta | None:
        thinking = parsed.thinking if self.request.think else ""
        if not (parsed.text or thinking or parsed.tool_calls):
            return None
        return Delta(
            id=self.request.id, text=parsed.text, thinking=thinking, tool_calls=parsed.tool_calls
        )
