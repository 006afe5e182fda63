"""The root command: finds commands lazily, turns errors into one line and an exit code."""

import errno
import importlib
from keyword import iskeyword
from typing import Any

import click

from gemmacli.app import App
from gemmacli.catalogue import ALIASES, COMMANDS, EPILOG, SUMMARY, VERSION_HELP
from gemmad.api.errors import GemmaError

INTERRUPTED = 130


class Failure(click.ClickException):
    """A GemmaError on its way to the terminal: `Error: <text>`, exit code 1."""


class LazyGroup(click.Group):
    """A group whose commands live in `gemmacli.commands.<name>` and are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the catalogue."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name or alias, imported now; None when there is none."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module = f"{name}_" if iskeyword(name) else name
        command = importlib.import_module(f"gemmacli.commands.{module}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with; an unknown one is answered with those like it."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(error.message + _nearest(args[0]), ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command table, from the catalogue alone."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; nothing a user can cause leaves a traceback."""
        try:
            return super().invoke(ctx)
        except GemmaError as error:
            raise Failure(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly
            raise Failure(f"{error.strerror}: {error.filename or 'while writing'}") from error
        except KeyboardInterrupt:
            click.echo(err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    found = get_close_matches(name, [*COMMANDS, *ALIASES])
    return f" Did you mean: {', '.join(found)}?" if found else ""


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from gemmacli.reaching import versions
    from gemmacli.render import show

    app = App()
    show(versions(app.env), app)
    ctx.exit()


@click.group(
    cls=LazyGroup,
    help=SUMMARY,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help=VERSION_HELP,
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Prepare what every command receives."""
    ctx.obj = App()
    if ctx.obj.env.get("NO_COLOR"):
        ctx.color = False


@cli.result_callback()
@click.pass_obj
def print_result(app: App, result: object) -> None:
    """Print what the command returned."""
    if result is not None:
        from gemmacli.render import show

        show(result, app)
