"""The built-in pair itself, in this process: its weights, its tokenizer, prompts it understands."""

from pathlib import Path

import torch
from tokenizers import Tokenizer

import gemmamodelfiles
from gemmarunner.engine.eager import EagerBackend
from gemmarunner.engine.engine import Engine
from gemmarunner.files import read_eos_ids
from gemmarunner.models.loader import load_drafter, load_target
from tests.fakes.tiny_models import checkpoint_files
from train import skills

DIRECTORY = Path(gemmamodelfiles.__path__[0]) / "nano"


def nano_engine(num_ctx: int = 2048) -> Engine:
    """An engine of nano in fp32 on the CPU."""
    files = checkpoint_files(DIRECTORY / "target")
    target = load_target(files, "cpu", torch.float32)
    drafter = load_drafter(checkpoint_files(DIRECTORY / "drafter"), "cpu", torch.float32)
    drafter.bind(target)
    return Engine(EagerBackend(target, drafter, num_ctx=num_ctx), eos_ids=read_eos_ids(files))


def nano_tokenizer() -> Tokenizer:
    """The tokenizer of nano."""
    return Tokenizer.from_file(str(DIRECTORY / "target" / "tokenizer.json"))


def nano_prompts(count: int) -> list[list[int]]:
    """The tokens of `count` rendered conversations, as many of each skill of the pair."""
    each = -(-count // len(skills.SKILLS))
    items = [item for skill in skills.SKILLS for item in skills.items(skill, "values", each, 0)]
    texts = [item.prompt for item in items[:count]]
    encodings = nano_tokenizer().encode_batch(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]
