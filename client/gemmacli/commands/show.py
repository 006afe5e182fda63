"""`gemma show`."""

import click

from gemmacli.app import App
from gemmacli.options import json_option, model_argument
from gemmacli.results import Card

PARTS = ("modelfile", "parameters", "template", "system", "license")


@click.command()
@model_argument()
@click.option("--modelfile", is_flag=True, help="Print the Modelfile alone.")
@click.option("--parameters", is_flag=True, help="Print the parameters alone.")
@click.option("--template", is_flag=True, help="Print the chat template alone.")
@click.option("--system", is_flag=True, help="Print the system message alone.")
@click.option("--license", is_flag=True, help="Print the licence alone.")
@click.option("-v", "--verbose", is_flag=True, help="Print all metadata and whole texts.")
@json_option
@click.pass_obj
def command(app: App, /, model: str, verbose: bool, **parts: bool) -> Card:
    """Show what a model is.

    Target and drafter with where they came from, parameters, texts. What --modelfile prints makes
    the same model again with gemma create.
    """
    wanted = [part for part in PARTS if parts[part]]
    if len(wanted) > 1:
        flags = " and ".join(f"--{part}" for part in wanted)
        raise click.UsageError(f"{flags} cannot be combined; ask for one of them.")
    reply = app.daemon().show(model, verbose=verbose)
    return Card(model, reply, part=wanted[0] if wanted else None, verbose=verbose)
