"""The text files of a tiny model: a small tokenizer of Gemma's kind, a chat template, stop ids.

The tokenizer is a BPE with byte fallback and `▁` for a space, trained here; its control tokens have
Gemma 4's ids. The template writes Gemma 4's layout, short of what only declarations need.
"""

import functools
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

VOCAB = 512
CONTROLS = {
    0: "<pad>",
    1: "<eos>",
    2: "<bos>",
    3: "<unk>",
    46: "<|tool>",
    47: "<tool|>",
    48: "<|tool_call>",
    49: "<tool_call|>",
    50: "<|tool_response>",
    51: "<tool_response|>",
    52: '<|"|>',
    98: "<|think|>",
    100: "<|channel>",
    101: "<channel|>",
    105: "<|turn>",
    106: "<turn|>",
}
_FIRST_BYTE = 107
_TEXT = [
    "How do I pull a model? Type `gemma pull nano` and wait until it has come.\n",
    "The user says something; the assistant answers it, thought by thought.\n",
    "a turn of the model, a turn of the tool: call weather in Paris, 12 degrees, ok.\n",
]

TEMPLATE = """\
{{- bos_token -}}
{%- if enable_thinking or tools or messages[0]['role'] == 'system' -%}
    {{- '<|turn>system\\n' -}}
    {%- if enable_thinking -%}{{- '<|think|>\\n' -}}{%- endif -%}
    {%- if messages[0]['role'] == 'system' -%}{{- messages[0]['content'] | trim -}}{%- endif -%}
    {%- for tool in tools or [] -%}
        {{- '<|tool>declaration:' + tool['function']['name'] + '<tool|>' -}}
    {%- endfor -%}
    {{- '<turn|>\\n' -}}
{%- endif -%}
{%- set ns = namespace(answered=false) -%}
{%- for message in (messages[1:] if messages[0]['role'] == 'system' else messages) -%}
    {%- if message['role'] == 'tool' -%}
        {{- '<|tool_response>response:' + (message.get('name') or message['tool_call_id']) -}}
        {{- '{value:<|"|>' + message['content'] + '<|"|>}<tool_response|>' -}}
        {%- set ns.answered = true -%}
    {%- else -%}
        {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
        {{- '<|turn>' + role + '\\n' -}}
        {%- if message.get('reasoning') -%}
            {{- '<|channel>thought\\n' + message['reasoning'] + '\\n<channel|>' -}}
        {%- endif -%}
        {%- for call in message.get('tool_calls') or [] -%}
            {{- '<|tool_call>call:' + call['function']['name'] + '{' -}}
            {%- for key, value in call['function']['arguments'] | dictsort -%}
                {{- key + ':<|"|>' + (value | string) + '<|"|>' -}}
            {%- endfor -%}
            {{- '}<tool_call|>' -}}
        {%- endfor -%}
        {{- message['content'] | trim -}}
        {%- if not message.get('tool_calls') -%}{{- '<turn|>\\n' -}}{%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if not ns.answered -%}{{- '<|turn>model\\n' -}}
{%- elif enable_thinking -%}{{- '<|channel>thought\\n' -}}{%- endif -%}
"""


@functools.cache
def tiny_tokenizer() -> Tokenizer:
    """A tokenizer of at most VOCAB tokens; shared, so do not change it."""
    learned = _learned(VOCAB - _FIRST_BYTE - 256)
    reserved = [CONTROLS.get(id, f"<unused{id}>") for id in range(_FIRST_BYTE)]
    pieces = reserved + [f"<0x{byte:02X}>" for byte in range(256)] + learned["pieces"]
    vocab = {piece: id for id, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocab, learned["merges"], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in CONTROLS.values()]
    )
    return tokenizer


def _learned(size: int) -> dict[str, list]:  # type: ignore[type-arg]
    """Pieces and merges of a plain BPE of `size` tokens."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False)
    trained.train_from_iterator(_TEXT, trainer)
    model = json.loads(trained.to_str())["model"]
    by_id = sorted(model["vocab"].items(), key=lambda item: item[1])
    return {"pieces": [piece for piece, _ in by_id], "merges": [tuple(m) for m in model["merges"]]}


def write_text_files(directory: Path) -> None:
    """The files beside a target's weights that are about text."""
    tiny_tokenizer().save(str(directory / "tokenizer.json"))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    (directory / "tokenizer_config.json").write_text('{"bos_token": "<bos>", "eos_token": "<eos>"}')
    (directory / "generation_config.json").write_text('{"eos_token_id": [1, 106, 50]}')
