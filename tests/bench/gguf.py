"""A target of a published shape as a GGUF file of random blocks: written, loaded, decoded on a GPU.

    python -m tests.bench.gguf --shape e2b --kind Q4_0

One JSON line: seconds to load from the page cache, milliseconds a token, and how near the logits
are to those of the same file unpacked into float32.
"""

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from gemmarunner.cuda.backend import CudaBackend
from gemmarunner.cuda.loading import load_cuda_target
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.ports import RoundPlan
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler
from gemmarunner.export_metadata import add_target_shape
from gemmarunner.models.gguf_names import ROPE_FREQS, gguf_names
from gemmarunner.models.loader import load_target
from tests.bench import shapes
from tests.bench.synthetic_checkpoint import target_shapes
from tests.fakes.gguf_pairs import random_blocks

_PROMPT, _TOKENS, _WARM = 512, 128, 8


def main() -> None:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=shapes.SHAPES, default="e2b")
    parser.add_argument("--kind", default="Q4_0")
    parser.add_argument("--no-twin", action="store_true", help="float32 may not fit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "target.gguf"
        begun = time.perf_counter()
        write(options.shape, gguf.GGMLQuantizationType[options.kind], path)
        written = time.perf_counter()
        target = load_cuda_target({path.name: path}, "cuda", torch.bfloat16)
        loaded = time.perf_counter()
        backend = CudaBackend(target, None, num_ctx=_PROMPT + _TOKENS + 64)
        backend.warm(lambda *_: None)
        figures = {
            "shape": options.shape,
            "kind": options.kind,
            "file_gb": round(path.stat().st_size / 1e9, 2),
            "write_s": round(written - begun, 1),
            "load_s": round(loaded - written, 2),
            "device_gb": round(torch.cuda.memory_allocated() / 1e9, 2),
            **_decoded(backend),
        }
        if not options.no_twin:
            figures |= _nearness(backend, path)
    print(json.dumps(figures), flush=True)


def write(shape: str, kind: gguf.GGMLQuantizationType, path: Path) -> None:
    """A file of random blocks; vectors and what the type does not fit are in float32."""
    writer = gguf.GGUFWriter(path, "gemma4", use_temp_file=False)
    config = shapes.target_config(shape)
    add_target_shape(writer, config)
    each = gguf.GGML_QUANT_SIZES[kind][0]
    rng = np.random.default_rng(0)
    for name, size in target_shapes(shape).items():
        called = next(gguf_names(name.removeprefix("model.")))
        if len(size) >= 2 and size[-1] % each == 0:  # experts are one stack of matrices
            blocks = random_blocks(math.prod(size[:-1]), size[-1], kind)
            writer.add_tensor(called, blocks.reshape(*size[:-1], -1), raw_dtype=kind)
        else:
            values = rng.standard_normal(size, np.float32)
            ordinary = 1 + 0.1 * values if len(size) == 1 else values * size[-1] ** -0.5
            writer.add_tensor(called, np.asarray(ordinary, np.float32))
    full = next(layer for layer in config.layers if layer.kind == "full")
    turns = np.full(full.head_dim // 2, 1e30, np.float32)
    turns[: full.rope.rotated_pairs] = 1
    writer.add_tensor(ROPE_FREQS, turns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _prompt(backend: CudaBackend) -> list[int]:
    generator = torch.Generator().manual_seed(1)
    text: list[int] = torch.randint(
        10, backend.vocab_size, (_PROMPT,), generator=generator
    ).tolist()
    return text


def _decoded(backend: CudaBackend) -> dict[str, float]:
    """Milliseconds of the prompt and of a token."""
    by = Sampler(Sampling(temperature=0.0), vocab=backend.vocab_size, device=backend.device)
    prefill = 0.0
    for _ in range(2):
        backend.truncate(0, 0)
        text = _prompt(backend)
        begun = time.perf_counter()
        backend.prefill(0, text)
        text.append(backend.first(0, text, by))
        prefill = time.perf_counter() - begun
    for turn in range(_TOKENS):
        if turn == _WARM:
            begun = time.perf_counter()
        text += backend.launch([RoundPlan(0, text, by, 0)]).wait().tokens[0]
    spent = time.perf_counter() - begun
    return {
        "prefill_ms": round(1e3 * prefill, 2),
        "ms_per_token": round(1e3 * spent / (_TOKENS - _WARM), 3),
    }


@torch.inference_mode()
def _nearness(backend: CudaBackend, path: Path) -> dict[str, Any]:
    """Of the last prompt row's logits to the float32 twin's."""
    backend.truncate(0, 0)
    text = _prompt(backend)
    backend.prefill(0, text)
    by = Sampler(Sampling(temperature=0.0), vocab=backend.vocab_size, device=backend.device)
    backend.first(0, text, by)
    ours = backend._target.logits(backend._slots.hidden[:1])[0]
    plain = load_target({path.name: path}, "cuda", torch.float32)
    cache = KVCache(plain.config, 1024, 1024, plain.device, plain.dtype)
    theirs = plain.logits(plain.forward(torch.tensor(text, device="cuda"), cache)[-1:])[0]
    return {
        "cosine": round(torch.cosine_similarity(ours, theirs, 0).item(), 5),
        "same_choice": bool(ours.argmax() == theirs.argmax()),
    }


if __name__ == "__main__":
    main()
