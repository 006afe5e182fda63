"""One command that makes nano: `python -m train --out DIR --general FILE.txt.xz [--seed 0]`.

The engine is imported inside `main`: the worker processes read this file again and need no torch.
"""

import argparse
from pathlib import Path
from typing import Any

from train.clock import Clock


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m train", description="Make the pair nano.")
    add = parser.add_argument
    add("--out", type=Path, required=True, help="directory for the pair and its report")
    add("--general", type=Path, required=True, help="general English, from train.corpus")
    add("--tokenizer", type=Path, help="a tokenizer made before; otherwise one is trained")
    add("--parts", type=Path, help="directory for the carried parts (default: OUT/transport)")
    add("--seed", type=int, default=0)
    add("--target-seconds", type=float, default=285.0)
    add("--drafter-seconds", type=float, default=70.0)
    add("--deadline-seconds", type=float, default=560.0)
    add("--conversations", type=int, default=800_000)
    add("--general-share", type=float, default=0.2)
    add("--workers", type=int, default=15)
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--no-compile", action="store_true")
    add("--tiny", action="store_true", help="a few steps of a small pair, to try the program")
    add("--sampler", default="train.grammar.mix:sample", help="module:function of conversations")
    add("--skills", default="train.skills", help="module of the evaluation's questions")
    return parser.parse_args(argv)


def plan(options: argparse.Namespace, tokenizer: Path) -> Any:
    """Return what the options ask for."""
    import torch

    from train.drafter import DrafterSettings
    from train.program import Plan
    from train.shapes import NANO, NANO_DRAFTER, TINY, TINY_DRAFTER
    from train.target import TargetSettings
    from train.workers import DataSettings

    tiny, compiled = options.tiny, not options.no_compile
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    return Plan(
        out=options.out,
        parts=options.parts or options.out / "transport",
        data=DataSettings(
            tokenizer=tokenizer,
            general=options.general,
            sampler=options.sampler,
            seed=options.seed,
            conversations=400 if tiny else options.conversations,
            shard=100 if tiny else 5_000,
            general_share=options.general_share,
            workers=2 if tiny else options.workers,
        ),
        skills=options.skills,
        target_shape=TINY if tiny else NANO,
        drafter_shape=TINY_DRAFTER if tiny else NANO_DRAFTER,
        target=TargetSettings(
            seconds=options.target_seconds,
            rows=2 if tiny else 48,
            steps=12 if tiny else 1_000_000,
            dtype=dtype,
            compiled=compiled,
        ),
        drafter=DrafterSettings(
            seconds=options.drafter_seconds,
            rows=1 if tiny else 32,
            starts=16 if tiny else 128,
            length=512,
            steps=6 if tiny else 1_000_000,
            dtype=dtype,
            compiled=compiled,
        ),
        device=torch.device(options.device),
        rows_kept=400 if tiny else 400_000,
        validation=20 if tiny else 2_000,
        prompts=16 if tiny else 49_152,
        asked={"values": 2, "frames": 2, "seen": 1}
        if tiny
        else {"values": 100, "frames": 100, "seen": 50},
        generator_batch=16 if tiny else 2_048,
    )


def main() -> None:
    """Make the pair and print where it is."""
    options = arguments()
    clock = Clock(options.deadline_seconds)
    tokenizer = options.tokenizer
    if tokenizer is None:
        from train.tokenizer import train_tokenizer

        tokenizer = options.out / "tokenizer"
        with clock.phase("training the tokenizer"):
            train_tokenizer(options.general, tokenizer, options.seed)
    with clock.phase("loading torch"):
        asked = plan(options, tokenizer)
    from train.program import run

    report = run(asked, clock)
    print(f"Wrote {options.out}: {report.values.get('pair_bytes')} bytes of pair.")


if __name__ == "__main__":
    main()
