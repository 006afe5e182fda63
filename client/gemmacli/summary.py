"""Says what a pull brought: the drafter, where it is from, and what its user should know."""

import click

from gemmacli.client import DaemonClient
from gemmacli.json_object import Json
from gemmacli.tables import origin
from gemmacli.wording import size
from gemmad.api.errors import GemmaError


def tell_what_came(client: DaemonClient, reference: str) -> None:
    """The drafter and the notes of what was just stored are on stderr, a line each."""
    try:
        reply = client.show(stored_name(reference))
    except GemmaError:
        return  # the pull is done, and says so; its name may be another than was typed
    for line in lines(reply):
        click.echo(line, err=True)


def lines(reply: Json) -> list[str]:
    """What /api/show says of the drafter, and the notes."""
    return [_drafter(reply), *(f"Note: {note}" for note in reply.get("notes") or ())]


def stored_name(reference: str) -> str:
    """What the model that `reference` means is called in the store, as far as its text tells."""
    place = reference.partition("@")[0].removeprefix("https://").removeprefix("ollama:")
    if place.lower().startswith("huggingface.co/"):
        place = f"hf.co/{place.partition('/')[2]}"
    if place.startswith("kaggle:"):
        _, model, _, *variation = [*place.split("/"), "", ""]
        return f"kaggle/{model}:{'-'.join(filter(None, variation))}"
    head, colon, variant = place.partition(":")
    return f"{head}:{variant.rpartition('/')[2]}" if colon else head


def _drafter(reply: Json) -> str:
    drafter = reply.get("drafter")
    if not drafter:
        return "No drafter: answers come from the target alone."
    facts = [str(drafter[key]) for key in ("parameter_size",) if drafter.get(key)]
    if drafter.get("size"):
        facts.append(size(int(drafter["size"])))
    if place := origin(drafter.get("source")):
        facts.append(f"from {place}")
    return f"Drafter: {', '.join(facts)}"
