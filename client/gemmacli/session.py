"""A conversation: its messages, its settings, and the requests that follow from them."""

from dataclasses import dataclass, field

from gemmacli.asking import Settings
from gemmacli.json_object import Json
from gemmacli.records import Answer


@dataclass(slots=True)
class Session:
    """Written by the loop and by `/set`; read by whoever shows or sends something."""

    model: str
    settings: Settings = field(default_factory=Settings)
    messages: list[Json] = field(default_factory=list)
    verbose: bool = False
    hide_thinking: bool = False
    word_wrap: bool = True
    history: bool = True

    def request(self, text: str) -> Json:
        """A request for the answer to `text` after all that was said."""
        return self.settings.chat(self.model, [*self.messages, _message("user", text)])

    def remember(self, text: str, answer: Answer) -> None:
        """The turn is part of the conversation, a broken-off one as far as it was seen."""
        if answer.text:
            self.messages += [_message("user", text), _message("assistant", answer.text)]

    def clear(self) -> None:
        """Nothing has been said."""
        self.messages.clear()

    def switch(self, model: str) -> None:
        """A new conversation with another model; the settings stay."""
        self.model = model
        self.clear()


def _message(role: str, content: str) -> Json:
    return {"role": role, "content": content}
