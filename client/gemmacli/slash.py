"""The slash commands of a conversation: what they are and what `/set` changes; pure."""

from typing import NamedTuple

from gemmacli.asking import draft_mode, parameter
from gemmacli.session import Session
from gemmad.api.errors import BadRequest

COMMANDS = ("/help", "/?", "/set", "/show", "/clear", "/list", "/load", "/bye", "/exit")
SHOWN = ("info", "parameters", "system", "template", "license")
HELP = """\
/set parameter NAME VALUE   Set a sampling parameter, e.g. temperature 0
/set system TEXT            Set the system message
/set think | nothink        Let the model think before it answers, or not
/set draft auto|off|N       Choose the draft depth
/set verbose | quiet        Print all figures after an answer, or none
/set history | nohistory    Keep what you type in the history file, or not
/set wordwrap | nowordwrap  Wrap answers at the edge of the screen, or not
/show info|parameters|system|template|license
                            Show what the model is
/clear                      Forget this conversation
/list                       List the models in the store
/load MODEL                 Talk with another model
/bye, /exit                 Leave (so does Ctrl-D)
/help, /?                   Show this

Begin and end with \"\"\" for a message of several lines. Ctrl-C stops an answer."""

_SWITCHES = {
    "think": ("think", True, "The model thinks before it answers."),
    "nothink": ("think", False, "The model answers without thinking."),
    "verbose": ("verbose", True, "Figures follow each answer."),
    "quiet": ("verbose", False, "No figures follow an answer."),
    "history": ("history", True, "What you type is kept in the history."),
    "nohistory": ("history", False, "What you type is not kept."),
    "wordwrap": ("word_wrap", True, "Answers are wrapped."),
    "nowordwrap": ("word_wrap", False, "Answers are not wrapped."),
}


class Slash(NamedTuple):
    """A command with its leading slash, and the rest of the line."""

    name: str
    rest: str


def parse(message: str) -> Slash | None:
    """The command of a line that is one; None for a message to the model.

    Raises:
        BadRequest: it begins like a command, but there is none of that name.
    """
    name, _, rest = message.strip().partition(" ")
    if not name.startswith("/") or "/" in name[1:] or "\n" in name:
        return None  # "/etc/hosts says ..." is a message
    if name not in COMMANDS:
        raise BadRequest(f"There is no command {name}.", fix=f"There are: {', '.join(COMMANDS)}.")
    return Slash(name, rest.strip())


def apply_set(rest: str, session: Session) -> str:
    """What `/set` now holds, in a sentence; the session has changed.

    Raises:
        BadRequest: the name or its value is not one that can be set; nothing changed.
    """
    name, _, value = rest.partition(" ")
    value = value.strip()
    if name in _SWITCHES and not value:
        return _switch(name, session)
    match name:
        case "parameter":
            return _set_parameter(value, session)
        case "system" if value:
            session.settings.system = value
            return "The system message is set."
        case "draft" if value:
            session.settings.draft = draft_mode(value)
            return f"The draft depth is {value}."
    known = "parameter NAME VALUE, system TEXT, draft auto|off|N, " + ", ".join(_SWITCHES)
    raise BadRequest(f"'/set {rest}' sets nothing." if rest else "Set what?", fix=f"Use: {known}.")


def _switch(name: str, session: Session) -> str:
    attribute, value, sentence = _SWITCHES[name]
    setattr(session.settings if attribute == "think" else session, attribute, value)
    return sentence


def _set_parameter(text: str, session: Session) -> str:
    name, _, value = text.partition(" ")
    if not value:
        raise BadRequest(
            "A parameter needs a name and a value.", fix="Use: /set parameter NAME VALUE"
        )
    wanted = parameter(name, value.strip())
    session.settings.options[name] = [wanted] if name == "stop" else wanted
    return f"{name} is {value.strip()}."
