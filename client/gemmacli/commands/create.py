"""`gemma create`."""

import click

from gemmacli.app import App
from gemmacli.options import draft_quantize_option, json_option, packing, quantize_option


@click.command()
@click.argument("model", metavar="NAME")
@click.option(
    "-f",
    "--file",
    type=click.Path(allow_dash=True),
    default="Modelfile",
    show_default=True,
    help="The Modelfile; - is stdin.",
)
@quantize_option("How the target's weights are packed whenever it is loaded.")
@draft_quantize_option
@json_option
@click.pass_obj
def command(
    app: App, model: str, file: str, quantize: str | None, draft_quantize: str | None
) -> None:
    """Make a model of a Modelfile.

    Its FROM is a name, hf.co/OWNER/REPO, a directory or a GGUF file, its DRAFT too. Files of this
    computer are linked into the store, or sent to a daemon that cannot read them.
    """
    from gemmacli.creating import create, places, read_modelfile
    from gemmacli.pulling import follow_to_model

    description, base = read_modelfile(file)
    found = places(description, base)
    for note in description.notes:
        click.echo(f"Note: {note}", err=True)
    client = app.daemon()
    records = create(client, model, description, found, dict(packing(quantize, draft_quantize)))
    follow_to_model(client, model, records, as_json=app.as_json)
