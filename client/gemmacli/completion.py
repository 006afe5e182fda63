"""Shell completion scripts; `python -m gemmacli.completion DIRECTORY` writes the packaged ones."""

import sys
from pathlib import Path

from click.shell_completion import ShellComplete, get_completion_class

from gemmacli.commandline import cli

FILES = {"bash": "gemma.bash", "zsh": "_gemma", "fish": "gemma.fish"}


def scripts() -> dict[str, str]:
    """File name -> script for each shell that click knows."""
    return {name: _script(shell) for shell, name in FILES.items()}


def _script(shell: str) -> str:
    kind = get_completion_class(shell)
    assert kind is not None
    # The base class's: bash's own also starts a bash to look at its version.
    return ShellComplete.source(kind(cli, {}, "gemma", "_GEMMA_COMPLETE")).strip() + "\n"


if __name__ == "__main__":
    for file_name, text in scripts().items():
        (Path(sys.argv[1]) / file_name).write_text(text, encoding="utf-8")
