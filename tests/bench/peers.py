"""Measures peers on the shapes of `tests.bench.shapes`: transformers' generate, llama.cpp's server.

`PYTHONPATH=daemon:. python -m tests.bench.peers --shape e2b --device cuda --modes plain,assisted`
prints a JSON line a mode: milliseconds a token after the first, and of the first. Weights are
random, so acceptance is what random weights give; the time of a round does not depend on it. With
`--gguf FILE` (and `--draft-gguf FILE`) llama-bench and llama-server are measured too, where they
are on the PATH.
"""

import argparse
import contextlib
import http.client
import json
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import torch

from tests.bench import shapes

START_S = 300.0


def hf_target(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """transformers' own model of a target's shape, with random weights of ordinary size."""
    from transformers import (
        Gemma4ForCausalLM,
        Gemma4TextConfig,
        Gemma4UnifiedForCausalLM,
        Gemma4UnifiedTextConfig,
    )

    data = shapes.target_json(name)
    kind = data["model_type"]
    if name == "12b":  # the one of the unified family; its config has no such fields
        known = {k: v for k, v in data.items() if "per_layer" not in k and k != "model_type"}
        return _built(Gemma4UnifiedForCausalLM, Gemma4UnifiedTextConfig(**known), device, dtype)
    assert kind == "gemma4_text", kind
    given = {key: value for key, value in data.items() if key != "model_type"}
    return _built(Gemma4ForCausalLM, Gemma4TextConfig(**given), device, dtype)


def hf_drafter(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """transformers' own model of the drafter's shape."""
    from transformers import (
        Gemma4AssistantConfig,
        Gemma4AssistantForCausalLM,
        Gemma4TextConfig,
        Gemma4UnifiedAssistantConfig,
        Gemma4UnifiedAssistantForCausalLM,
        Gemma4UnifiedTextConfig,
    )

    data = {k: v for k, v in shapes.drafter_json(name).items() if k != "model_type"}
    text = {k: v for k, v in data.pop("text_config").items() if k != "model_type"}
    if name == "12b":
        known = {k: v for k, v in text.items() if "per_layer" not in k}
        kept = {k: v for k, v in data.items() if k in ("backbone_hidden_size", "num_centroids")}
        config = Gemma4UnifiedAssistantConfig(text_config=Gemma4UnifiedTextConfig(**known), **kept)
        return _built(Gemma4UnifiedAssistantForCausalLM, config, device, dtype)
    config = Gemma4AssistantConfig(text_config=Gemma4TextConfig(**text), **data)
    return _built(Gemma4AssistantForCausalLM, config, device, dtype)


def _built(kind: Any, config: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """The model with random weights, made on the device without a copy on the host."""
    with torch.device("meta"):
        model = kind(config)
    model = model.to(dtype).to_empty(device=device)
    model.init_weights()  # what is computed from the config alone: frequencies, scales
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("token_ordering"):
                order = torch.randperm(tensor.numel(), generator=generator, device=device)
                tensor.copy_(order.view_as(tensor))
            elif tensor.is_floating_point() and tensor.ndim >= 2:
                tensor.normal_(0, tensor.shape[-1] ** -0.5, generator=generator)
    return model.eval().requires_grad_(False)


def transformers_ms(
    target: Any, drafter: Any | None, options: argparse.Namespace
) -> dict[str, Any]:
    """Greedy generate of a fixed length, end of text banned, first token timed apart."""
    ids = torch.randint(10, 250_000, (1, options.prompt), device=target.device)
    ids %= target.config.vocab_size
    same: dict[str, Any] = {"do_sample": False, "pad_token_id": 0, "eos_token_id": 1}
    if drafter is not None:
        drafter.generation_config.num_assistant_tokens = options.depth
        drafter.generation_config.num_assistant_tokens_schedule = "constant"
        same |= {"assistant_model": drafter}

    def run(count: int) -> float:
        _wait(target.device)
        begun = time.perf_counter()
        mask = torch.ones_like(ids)
        out = target.generate(
            ids, attention_mask=mask, max_new_tokens=count, min_new_tokens=count, **same
        )
        _wait(target.device)
        assert out.shape[1] == options.prompt + count
        return time.perf_counter() - begun

    run(4)
    first = statistics.median(run(1) for _ in range(options.repeats))
    whole = statistics.median(run(options.tokens) for _ in range(options.repeats))
    return {
        "first_ms": round(1e3 * first, 2),
        "ms_per_token": round(1e3 * (whole - first) / (options.tokens - 1), 3),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def transformers_lines(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A record for plain and for assisted generate; what cannot run says why."""
    import transformers

    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    if options.threads:
        torch.set_num_threads(options.threads)
    target = hf_target(options.shape, device, dtype)
    for mode in options.modes:
        line = {"peer": f"transformers {transformers.__version__}", "mode": mode}
        line |= {"shape": options.shape, "device": options.device, "prompt": options.prompt}
        try:
            drafter = None if mode == "plain" else hf_drafter(options.shape, device, dtype)
            yield line | transformers_ms(target, drafter, options)
        except Exception as error:  # a peer that cannot run is a result, too
            yield line | {"failed": f"{type(error).__name__}: {error}"[:300]}


def llama_lines(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A record for each of llama.cpp's programs that is here."""
    layers = ["-ngl", "99"] if options.device == "cuda" else ["-ngl", "0"]
    threads = ["-t", str(options.threads)] if options.threads else []
    if bench := shutil.which("llama-bench"):
        sizes = ["-p", str(options.prompt), "-n", str(options.tokens), "-r", str(options.repeats)]
        command = [bench, "-m", options.gguf, *sizes, *layers, *threads, "-o", "json"]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        for record in json.loads(run.stdout):
            kind = "plain" if record["n_gen"] else "prompt"
            rate = round(record["avg_ts"], 2)
            yield {"peer": "llama-bench", "mode": kind, "tokens_per_s": rate}
    if server := shutil.which("llama-server"):
        modes = ["plain", *(["assisted"] if options.draft_gguf else [])]
        for mode in modes:
            drafting = [] if mode == "plain" else _drafting(options)
            command = [server, "-m", options.gguf, *layers, *threads, "-c", "4096", *drafting]
            yield {"peer": "llama-server", "mode": mode} | _llama_server_ms(command, options)


def _drafting(options: argparse.Namespace) -> list[str]:
    spec = ["-md", options.draft_gguf, "--spec-type", "draft-mtp"]
    spec += ["--spec-draft-n-max", str(options.depth)]
    return spec + (["--spec-synth-rates", options.accept] if options.accept else [])


def _llama_server_ms(command: list[str], options: argparse.Namespace) -> dict[str, Any]:
    with llama_server(command) as port:
        timings = [_answer(port, options) for _ in range(options.repeats + 1)][1:]
    per_token = statistics.median(t["predicted_per_token_ms"] for t in timings)
    prompt = statistics.median(t["prompt_ms"] for t in timings)
    return {"first_ms": round(prompt, 2), "ms_per_token": round(per_token, 3)}


@contextlib.contextmanager
def llama_server(command: list[str]) -> Iterator[int]:
    """A llama-server that answers on the port, and is ended after."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await_health(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _await_health(port: int, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            if _ask(port, "GET", "/health", None).get("status") == "ok":
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.2)
    raise SystemExit(f"llama-server did not start (exit code {process.poll()})")


def _answer(port: int, options: argparse.Namespace) -> dict[str, Any]:
    ids = torch.randint(10, 250_000, (options.prompt,)).tolist()
    return complete(port, ids, options.tokens)


def complete(port: int, ids: list[int], tokens: int, *, cached: bool = False) -> dict[str, Any]:
    """Timings of one greedy answer; end of text banned. cached: a prompt may be known already."""
    body = {"prompt": ids, "n_predict": tokens, "temperature": 0}
    reply = _ask(port, "POST", "/completion", body | {"ignore_eos": True, "cache_prompt": cached})
    timings: dict[str, Any] = reply["timings"]
    return timings


def _ask(port: int, method: str, path: str, body: object) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        reply: dict[str, Any] = json.loads(connection.getresponse().read())
        return reply
    finally:
        connection.close()


def main() -> None:
    """Prints a line for every peer that is here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="nano", choices=shapes.SHAPES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--modes", default="plain,assisted", type=lambda text: text.split(","))
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gguf", help="the target for llama.cpp's programs")
    parser.add_argument("--draft-gguf", help="the drafter for llama-server")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--accept", help="llama-server's --spec-synth-rates")
    options = parser.parse_args()
    for line in transformers_lines(options):
        print(json.dumps(line), flush=True)
    if options.gguf:
        for line in llama_lines(options):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
