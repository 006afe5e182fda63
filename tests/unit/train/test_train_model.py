"""The training modules compute what transformers computes with the weights they export."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.train.train_fakes import write_inputs
from train.attention import dense_masks, ropes
from train.drafting import first_hidden, read_rows, starts_at
from train.export import export_drafter, export_target
from train.model import Drafter, Target
from train.shapes import NANO, NANO_DRAFTER
from train.target import frozen_copy

LENGTH = 300  # past the sliding window


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """The machine is shared."""
    torch.set_num_threads(1)


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Give every norm and scalar a value of its own and round all weights as the export does."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.mul_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
            parameter.copy_(parameter.bfloat16().float())
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def pair() -> tuple[Target, Drafter]:
    """A random pair of nano's sizes."""
    torch.manual_seed(0)
    drafter = Drafter(NANO_DRAFTER, NANO)
    torch.nn.init.normal_(drafter.model.embed_tokens.weight, std=0.1)
    drafter.masked_embedding.token_ordering.copy_(torch.randperm(NANO.vocab))
    target = shaken(Target(NANO))
    assert isinstance(target, Target)
    shaken(drafter)
    return target, drafter


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    """One row of random tokens."""
    return torch.randint(NANO.vocab, (1, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def theirs(
    pair: tuple[Target, Drafter], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The exported pair as transformers loads it, with what it said about missing keys."""
    from transformers import AutoModelForCausalLM, Gemma4AssistantForCausalLM

    out: Path = tmp_path_factory.mktemp("pair")
    target, drafter = pair
    tokenizer, _ = write_inputs(out)
    export_target(target, tokenizer, out / "target")
    export_drafter(drafter, target, out / "drafter")
    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True}
    return {
        "target": AutoModelForCausalLM.from_pretrained(out / "target", **options),
        "drafter": Gemma4AssistantForCausalLM.from_pretrained(out / "drafter", **options),
    }


@pytest.mark.parametrize("part", ["target", "drafter"])
def test_transformers_loads_the_export_with_no_key_missing_or_left_over(
    theirs: dict[str, Any], part: str
) -> None:
    """Only the tied head may be absent."""
    model, info = theirs[part]

    assert set(info["missing_keys"]) <= {"lm_head.weight"}
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert not info.get("error_msgs")
    assert (
        type(model).__name__
        == {
            "target": "Gemma4ForCausalLM",
            "drafter": "Gemma4AssistantForCausalLM",
        }[part]
    )


def test_target_has_the_sizes_of_the_feasibility_run(pair: tuple[Target, Drafter]) -> None:
    """13,687,888 parameters and ten scalars; the drafter 1,911,232 and four."""
    sizes = [sum(p.numel() for p in model.parameters()) for model in pair]

    assert sizes == [13_687_888 + 10, 1_911_232 + 4]


def test_target_logits_equal_those_of_transformers(
    pair: tuple[Target, Drafter], theirs: dict[str, Any], tokens: torch.Tensor
) -> None:
    """Logits of a row longer than the window agree to 1e-4."""
    target, _ = pair
    masks = dense_masks(torch.zeros_like(tokens), NANO.window)
    tables = ropes(NANO, torch.arange(LENGTH))
    ours = target.logits(target.model(tokens, tables, masks, torch.float32).hidden)
    with torch.no_grad():
        expected = theirs["target"][0](tokens).logits

    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("place", [5, LENGTH - 1])
def test_drafter_steps_equal_those_of_transformers(
    pair: tuple[Target, Drafter], theirs: dict[str, Any], tokens: torch.Tensor, place: int
) -> None:
    """Five recurrent steps at one position give the same states and drafts, windowed or not."""
    target, drafter = pair
    their_target, their_drafter = theirs["target"][0], theirs["drafter"][0]
    documents = torch.zeros_like(tokens)
    reading = read_rows(target, tokens, documents, ropes(NANO, torch.arange(LENGTH)))
    starts = starts_at(target, reading, documents, torch.tensor([[place]]))
    hidden = first_hidden(reading, starts)
    shared = {
        kind: tuple(
            part[:, :, max(0, place - NANO.window) if "slid" in kind else 0 : place] for part in kv
        )
        for kind, kv in reading.decoded.donors.items()
    }
    token, theirs_hidden, theirs_token = (
        tokens[:, place : place + 1],
        hidden,
        tokens[:, place : place + 1],
    )
    for _ in range(5):
        embedded = target.model.embed(token, torch.float32)
        hidden, normed = drafter(embedded, hidden, starts.tables, starts.masks, starts.donors)
        token = drafter.draft(normed)
        with torch.no_grad():
            step = their_drafter(
                inputs_embeds=torch.cat(
                    (their_target.model.embed_tokens(theirs_token), theirs_hidden), dim=-1
                ),
                position_ids=torch.tensor([[place]]),
                shared_kv_states=shared,
            )
        theirs_hidden, theirs_token = step.last_hidden_state, step.logits.argmax(-1)

        torch.testing.assert_close(hidden, theirs_hidden, atol=1e-4, rtol=1e-4)
        assert torch.equal(token, theirs_token)


def test_frozen_copy_holds_the_exported_weights(pair: tuple[Target, Drafter]) -> None:
    """Weights that bf16 can hold come back as they were; the copy trains nothing."""
    copy = frozen_copy(pair[0], torch.float32)

    assert all(
        torch.equal(a, b) for a, b in zip(copy.parameters(), pair[0].parameters(), strict=True)
    )
    assert not any(p.requires_grad for p in copy.parameters())
