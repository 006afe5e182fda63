"""What is said of GGUF files that the `gguf` package's own writer made."""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from gemmad.formats.architectures import SUPPORTED
from gemmad.formats.limits import BadFile
from gemmad.inspection.look import look
from gemmad.wire import PairFiles

TOKENS = [f"token{n}" for n in range(14)] + ["grüße", "<|tool>"]
TEMPLATE = "{{ messages }}<|tool><|think|>"
KV_HEADS, FLAGS = [2, 2, 2, 1], [True, True, True, False]


def write(
    path: Path,
    architecture: str = "gemma4",
    *,
    more: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
    rows: int = 16,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F16,
) -> str:
    """A small target, drafter or other model."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(4)
    writer.add_context_length(4_096)
    writer.add_embedding_length(32 if "assistant" in architecture else 64)
    writer.add_head_count(4)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_feed_forward_length([128, 128, 256, 256])
    writer.add_sliding_window(512)
    writer.add_sliding_window_pattern(FLAGS)
    writer.add_key_length(64)
    writer.add_key_length_swa(32)
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["to ken", "a b"])
    writer.add_chat_template(TEMPLATE)
    writer.add_float32("general.sampling.top_p", 0.95)
    writer.add_int32("general.sampling.top_k", 64)
    if "assistant" in architecture:
        writer.add_uint32(f"{architecture}.embedding_length_out", 64)
    more(writer)
    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    data = np.zeros((rows, 64 // block * nbytes), dtype=np.uint8)
    writer.add_tensor("token_embd.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def test_a_target_is_described(tmp_path: Path) -> None:
    """Type of most weights, lists for each layer, sampling, template, tokens."""
    path = write(tmp_path / "m.gguf", kind=gguf.GGMLQuantizationType.Q4_0)
    found = look(PairFiles(target={"m.gguf": path}))
    hashed = hashlib.sha256()
    for token in TOKENS:
        hashed.update(struct.pack("<I", len(token.encode())) + token.encode())

    assert (found.details.quantization_level, found.details.format) == ("Q4_0", "gguf")
    assert found.details.capabilities == ("completion", "tools", "thinking")
    assert found.info["gemma4.attention.head_count_kv"] == KV_HEADS
    assert found.info["gemma4.feed_forward_length"] == [128, 128, 256, 256]
    assert found.parameters == {"top_p": 0.95, "top_k": 64}
    assert found.tokenizer == f"sha256:{hashed.hexdigest()}"
    assert found.template == f"sha256:{hashlib.sha256(TEMPLATE.encode()).hexdigest()}"


@pytest.mark.parametrize("spelling", ["gemma4-assistant", "gemma4_assistant"])
def test_both_spellings_are_drafters(tmp_path: Path, spelling: str) -> None:
    """It fits; with another vocabulary it does not, and both figures are told."""
    target = {"m.gguf": write(tmp_path / "m.gguf")}
    fits, other = (
        {"d.gguf": write(tmp_path / f"d{rows}.gguf", spelling, rows=rows)} for rows in (16, 24)
    )

    assert look(PairFiles(target=target, drafter=fits)).drafter_mismatch is None
    wrong = look(PairFiles(target=target, drafter=other)).drafter_mismatch
    assert wrong is not None
    assert "24 in the drafter and 16 in the target" in wrong


def test_a_drafter_alone_and_two_targets_are_told(tmp_path: Path) -> None:
    """A drafter is no target, and a target no drafter."""
    target, drafter = write(tmp_path / "m.gguf"), write(tmp_path / "d.gguf", "gemma4-assistant")

    with pytest.raises(BadFile, match="are a drafter"):
        look(PairFiles(target={"d.gguf": drafter}))
    both = look(PairFiles(target={"m.gguf": target}, drafter={"m.gguf": target}))
    assert both.drafter_mismatch == "the files given as the drafter are another kind of model."


def test_a_projector_is_told_from_other_models(tmp_path: Path) -> None:
    """Its architecture is clip; anything else beside the target is refused by name."""
    target, tower = write(tmp_path / "m.gguf"), write(tmp_path / "mmproj.gguf", "clip")
    sound = PairFiles(target={"m.gguf": target}, projector={"mmproj.gguf": tower})
    wrong = PairFiles(target={"m.gguf": target}, projector={"mmproj.gguf": target})

    assert look(sound).details.format == "gguf"
    with pytest.raises(BadFile, match=r"mmproj\.gguf cannot be used: it is no projector"):
        look(wrong)
    with pytest.raises(BadFile, match="'clip' is not supported"):
        look(PairFiles(target={"mmproj.gguf": tower}))


def test_a_long_vocabulary_takes_no_room(tmp_path: Path) -> None:
    """Of lists that no setting is, nothing is in the answer; those of layers are."""

    def many(writer: gguf.GGUFWriter) -> None:
        writer.add_array("gemma4.odd", list(range(2_000)))
        writer.add_array("tokenizer.ggml.scores", [0.5] * 2_000)
        writer.add_array("tokenizer.ggml.suppress_tokens", [3, 5])

    found = look(PairFiles(target={"m.gguf": write(tmp_path / "m.gguf", more=many)}))

    assert not found.info.get("gemma4.odd")
    assert len(json.dumps(found.info)) < 3_000


GEMMA3 = {"model_type": "gemma3_text", "hidden_size": 64, "num_hidden_layers": 2}


@pytest.mark.skipif("gemma3" in SUPPORTED, reason="Gemma 3 is run")
def test_gemma3_is_refused_alike(tmp_path: Path) -> None:
    """In both formats: what it is, why it does not run, what does."""
    (tmp_path / "config.json").write_text(json.dumps(GEMMA3))
    told = []
    for files in (
        {"m.gguf": write(tmp_path / "m.gguf", "gemma3")},
        {"config.json": str(tmp_path / "config.json")},
    ):
        with pytest.raises(BadFile) as error:
            look(PairFiles(target=files))
        told.append(str(error.value).partition("cannot be used: ")[2])

    assert told[0] == told[1]
    assert "is a Gemma 3 model" in told[0]
    assert "values" in told[0]
    assert "gemma4:e2b" in told[0]
