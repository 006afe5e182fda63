"""`gemma help`."""

import click


@click.command()
@click.argument("name", metavar="[COMMAND]", default="")
@click.pass_context
def command(ctx: click.Context, name: str) -> None:
    """Show help for a command.

    Without COMMAND, for the program.
    """
    root = ctx.find_root()
    group = root.command
    assert isinstance(group, click.Group)
    if not name:
        click.echo(group.get_help(root))
        return
    found = group.get_command(root, name)
    if found is None:
        raise click.UsageError(f"No such command {name!r}. Try: gemma help", ctx=root)
    with click.Context(found, info_name=name, parent=root) as inner:
        click.echo(found.get_help(inner))
