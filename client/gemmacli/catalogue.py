"""Every command's name and one-line help, so that `gemma --help` imports neither them nor click."""

SUMMARY = "Run Gemma 4 with its drafter on this computer."
VERSION_HELP = "Show the versions of client and daemon."
EPILOG = "Try: gemma run nano"
COMMANDS = {
    "run": "Ask a model, or talk with it.",
    "pull": "Bring a model and its drafter into the store.",
    "pulls": "List the pulls that run, or cancel one.",
    "search": "Find models that can be pulled.",
    "list": "List the models in the store.",
    "ps": "List the models that are loaded, and what takes memory.",
    "show": "Show what a model is.",
    "stop": "Unload a model.",
    "create": "Make a model of a Modelfile.",
    "draft": "Give a model another drafter, or none.",
    "cp": "Give a model a second name.",
    "rm": "Remove models from the store.",
    "import": "Take models over from another program's store.",
    "export": "Write a model's files for other programs.",
    "verify": "Read every byte of the store again, and repair what is bad.",
    "gc": "Remove files that no model needs.",
    "bench": "Measure a model with and without its drafter.",
    "doctor": "Show what this computer has for models, and what fits.",
    "serve": "Run the daemon in the foreground.",
    "help": "Show help for a command.",
}
ALIASES = {"ls": "list", "start": "serve"}


def program_help() -> str:
    """What click prints for `gemma --help` on a terminal of 80 columns."""
    options = {"--version": VERSION_HELP, "-h, --help": "Show this message and exit."}
    sections = [
        "Usage: gemma [OPTIONS] COMMAND [ARGS]...",
        f"  {SUMMARY}",
        _listed("Options", options),
        _listed("Commands", COMMANDS),
        f"  {EPILOG}",
    ]
    return "\n\n".join(sections) + "\n"


def _listed(title: str, entries: dict[str, str]) -> str:
    width = max(len(name) for name in entries)
    rows = [f"  {name:<{width}}  {text}" for name, text in entries.items()]
    return "\n".join([f"{title}:", *rows])
