"""A pair of GGUF files is made from a Modelfile with everything in it, and answers as it should."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import gemmamodelfiles
from gemmad.api.modelfile import parse
from gemmad.api.parameters import typed
from tests.fakes.gemma_program import run_gemma

pytestmark = pytest.mark.timeout(240)

NANO = Path(gemmamodelfiles.__path__[0]) / "nano"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn>{{ m['role'] }}\n{{ m['content'] }}<turn|>\n"
    "{% endfor %}<|turn>model\n"
)
MODULES = {
    "layers.0.mlp.up_proj": (512, 320),
    "layers.3.self_attn.q_proj": (256, 320),
    "layers.9.mlp.down_proj": (320, 1024),
}
RANK, SCALING = 4, 2.0


def gemma(nano, *args: str) -> str:
    """What a command that ended well printed."""
    result = run_gemma(*args, GEMMA_HOME=str(nano.home))
    assert result.returncode == 0, result.stderr
    return result.stdout


def write_adapter(into: Path) -> dict[str, torch.Tensor]:
    """A LoRA of some matrices; returns what it adds to each."""
    into.mkdir()
    generator, halves, added = torch.Generator().manual_seed(3), {}, {}
    for module, (rows, columns) in MODULES.items():
        down = torch.randn(RANK, columns, generator=generator) * 0.4
        up = torch.randn(rows, RANK, generator=generator) * 0.4
        name = f"base_model.model.model.{module}.lora_"
        halves |= {f"{name}A.weight": down, f"{name}B.weight": up}
        added[f"model.{module}.weight"] = SCALING * (up @ down)
    save_file(halves, into / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK * SCALING, "bias": "none"}
    (into / "adapter_config.json").write_text(json.dumps(config))
    return added


def write_merged(added: dict[str, torch.Tensor], into: Path) -> None:
    """nano's target with the adapter added by hand."""
    shutil.copytree(NANO / "target", into)
    tensors = load_file(NANO / "target" / "model.safetensors")
    for name, delta in added.items():
        tensors[name] = tensors[name].float() + delta
    save_file(tensors, into / "model.safetensors", {"format": "pt"})


def modelfile(from_: str, draft: str, *more: str) -> str:
    """A Modelfile with one of everything."""
    lines = (
        f"FROM {from_}",
        f"DRAFT {draft}",
        *more,
        "PARAMETER temperature 0",
        "PARAMETER num_predict 40",
        'PARAMETER stop "<stop>"',
        "SYSTEM You write of models.",
        "MESSAGE user Hello",
        "MESSAGE assistant Good day.",
        "LICENSE Apache-2.0",
        f'TEMPLATE """{TEMPLATE}"""',
    )
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pair's files will lie, with an adapter and what it must be equal to."""
    directory = tmp_path_factory.mktemp("files")
    write_merged(write_adapter(directory / "adapter"), directory / "merged")
    return directory


def created(nano, files: Path, name: str, text: str) -> str:
    """The Modelfile made a model of this name; returns the Modelfile that it shows."""
    path = files / f"{name}.modelfile"
    path.write_text(text)
    gemma(nano, "create", name, "-f", str(path))
    return gemma(nano, "show", name, "--modelfile")


@pytest.mark.slow
def test_adapted_gguf_pair_is_the_merged_pair(nano, files: Path) -> None:
    """Greedy answers are those of the merged safetensors, with drafts; the base's are others."""
    gemma(nano, "export", "nano", str(files / "nano.gguf"))
    drafter = "./mtp-nano.gguf"
    created(nano, files, "tuned", modelfile("./nano.gguf", drafter, "ADAPTER ./adapter"))
    created(nano, files, "plain", modelfile("./nano.gguf", drafter))
    created(nano, files, "merged", modelfile("./merged", str(NANO / "drafter")))
    answers = {
        name: json.loads(gemma(nano, "run", name, "How do I pull a model?", "--json"))
        for name in ("tuned", "merged", "plain")
    }

    assert answers["tuned"]["response"] == answers["merged"]["response"]
    assert answers["tuned"]["response"] != answers["plain"]["response"]
    assert answers["tuned"]["draft"]["drafted"] > 0
    for name in ("tuned", "plain", "merged"):
        gemma(nano, "rm", name)


@pytest.mark.slow
def test_its_modelfile_goes_round(nano, files: Path) -> None:
    """What `show --modelfile` writes makes the same model again, and shows the same."""
    gemma(nano, "export", "nano", str(files / "again.gguf"))
    text = modelfile("./again.gguf", "./mtp-again.gguf", "ADAPTER ./adapter")
    shown = created(nano, files, "first", text)
    again = created(nano, files, "second", shown)
    wanted, found, second = parse(text), parse(shown), parse(again)

    assert typed(found.parameters) == typed(found.parameters | wanted.parameters)
    assert (found.system, found.messages) == (wanted.system, wanted.messages)
    assert found.template == wanted.template
    assert second.parameters == found.parameters
    assert (second.template, second.messages) == (found.template, found.messages)
    models = {m["name"]: m for m in json.loads(gemma(nano, "list", "--json"))["models"]}
    assert models["first:latest"]["size"] == models["second:latest"]["size"]
    for name in ("first", "second"):
        gemma(nano, "rm", name)


@pytest.mark.slow
def test_gemma3_is_refused_alike(nano, files: Path) -> None:
    """From a directory and from a GGUF file: what it is, why it does not run, what does."""
    directory = shutil.copytree(NANO / "target", files / "gemma3")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"model_type": "gemma3_text"}))
    writer = gguf.GGUFWriter(files / "gemma3.gguf", "gemma3")
    writer.add_block_count(2)
    writer.add_embedding_length(64)
    writer.add_tensor("token_embd.weight", np.zeros((4, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    told = []
    for place in (directory, files / "gemma3.gguf"):
        (files / "g3").write_text(f"FROM {place}\n")
        result = run_gemma("create", "g3", "-f", str(files / "g3"), GEMMA_HOME=str(nano.home))
        assert result.returncode != 0
        told.append(result.stderr)

    for text in told:
        assert "it is a Gemma 3 model, which uses attention values as they are" in text
        assert "gemma4:e2b" in text
