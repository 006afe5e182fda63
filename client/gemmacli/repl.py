"""The conversation on a terminal: reads a message, acts on it, until the user leaves."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from gemmacli.answering import Collector, follow
from gemmacli.app import App
from gemmacli.client import DaemonClient
from gemmacli.printer import AnswerPrinter
from gemmacli.pulling import with_model
from gemmacli.render import show
from gemmacli.results import Answered, Card, Stored
from gemmacli.session import Session
from gemmacli.slash import HELP, SHOWN, Slash, apply_set, parse
from gemmad.api.errors import BadRequest, GemmaError

FENCE = '"""'
Ask = Callable[[str], str]


class Repl:
    """One conversation; `ask` shows a prompt and returns a line."""

    def __init__(self, client: DaemonClient, session: Session, ask: Ask) -> None:
        self._client = client
        self._session = session
        self._ask = ask

    def run(self) -> None:
        """The user has left. The daemon's errors are printed and the conversation goes on."""
        while True:
            try:
                if not self._turn():
                    return
            except GemmaError as error:
                click.echo(f"Error: {error}", err=True)
            except KeyboardInterrupt:
                click.echo("\nUse Ctrl-D or /bye to leave.", err=True)
            except EOFError:
                return

    def load(self, model: str) -> None:
        """The model is in memory, pulled if the store did not have it.

        Raises:
            GemmaError: it cannot be pulled or loaded.
        """
        request = self._session.settings.load(model)
        with_model(self._client, model, lambda: self._client.complete(request))

    def _turn(self) -> bool:
        message = read_message(self._ask)
        command = parse(message)
        if command is not None:
            return self._command(command)
        if message.strip():
            self._answer(message)
        return True

    def _answer(self, message: str) -> None:
        session, collector = self._session, Collector()
        printer = AnswerPrinter(hide_thinking=session.hide_thinking, word_wrap=session.word_wrap)
        try:
            follow(self._client.chat(session.request(message)), printer, collector)
        except KeyboardInterrupt:
            click.echo("(stopped)", err=True)
        session.remember(message, collector.answer)
        quiet = not session.verbose
        show(Answered(session.model, collector.answer, verbose=session.verbose, quiet=quiet), App())
        click.echo()

    def _command(self, command: Slash) -> bool:
        """Act on a slash command; False when it leaves."""
        match command.name:
            case "/bye" | "/exit":
                return False
            case "/help" | "/?":
                click.echo(HELP)
            case "/set":
                click.echo(apply_set(command.rest, self._session))
            case "/show":
                self._show(command.rest or "info")
            case "/clear":
                self._session.clear()
                click.echo("This conversation is forgotten.")
            case "/list":
                show(Stored(self._client.models()), App())
            case "/load":
                self._switch(command.rest)
        return True

    def _show(self, part: str) -> None:
        if part not in SHOWN:
            raise BadRequest(
                f"'/show {part}' shows nothing.", fix=f"Use one of: {', '.join(SHOWN)}."
            )
        session = self._session
        if part == "system" and session.settings.system is not None:
            click.echo(session.settings.system)
            return
        reply = self._client.show(session.model)
        show(Card(session.model, reply, part=None if part == "info" else part), App())
        if part == "parameters":
            for name, value in session.settings.options.items():
                click.echo(f"{name:<30} {value} (set here)")

    def _switch(self, model: str) -> None:
        if not model:
            raise BadRequest("Load which model?", fix="Use: /load MODEL")
        self.load(model)
        self._session.switch(model)
        click.echo(f"Now talking with {model}; a new conversation.")


def read_message(ask: Ask) -> str:
    """A message of one line, or of several between triple quotes, which are taken away."""
    text = ask(">>> ")
    if FENCE not in text:
        return text
    while text.count(FENCE) % 2:
        text += "\n" + ask("... ")
    return text.replace(FENCE, "")


def converse(client: DaemonClient, session: Session, env: Mapping[str, str]) -> None:
    """A conversation on this terminal has been held; its model was pulled first, if missing.

    Raises:
        GemmaError: the model cannot be pulled or loaded.
    """
    repl = Repl(client, session, _terminal(session, env))
    with_model(client, session.model, lambda: client.show(session.model))
    click.echo(click.style(f"Loading {session.model} ...", dim=True), nl=False, err=True)
    try:
        repl.load(session.model)
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)
    repl.run()


def _terminal(session: Session, env: Mapping[str, str]) -> Ask:
    """Asks with line editing; only what is typed at the main prompt goes to the history."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import InMemoryHistory

    from gemmacli.history import open_history

    hidden: PromptSession[str] = PromptSession(history=InMemoryHistory())
    history = open_history(env)
    kept: PromptSession[str] = PromptSession(history=history) if history else hidden
    hint: Any = [("class:placeholder", "Send a message (/? for help)")]

    def ask(prompt: str) -> str:
        source = kept if session.history else hidden
        line: str = source.prompt(prompt, placeholder=hint if prompt == ">>> " else "")
        return line

    return ask
