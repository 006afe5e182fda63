"""Token ids -> text, one at a time, such that the pieces add up to the text of all of them.

Half a character is never given. In a tokenizer with byte fallback one wrong byte spoils its whole
run of byte tokens (each becomes U+FFFD), so a run is held until an ordinary token ends it.
"""

import re
from collections.abc import Set

from tokenizers import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_REPLACEMENT = "\ufffd"  # what a decoder puts for an incomplete character


class Detokenizer:
    """The text of one answer; of control tokens only `hidden_ids` (end, padding) do not show."""

    def __init__(self, tokenizer: Tokenizer, hidden_ids: Set[int] = frozenset()) -> None:
        self._tokenizer = tokenizer
        self._hidden_ids = hidden_ids
        self._ids: list[int] = []  # given ones, kept as context, then those that are held
        self._given = 0

    def push(self, id: int) -> str:
        """The text that `id` made certain."""
        token = self._tokenizer.id_to_token(id)
        if token is None or id in self._hidden_ids:
            return ""
        self._ids.append(id)
        return "" if _BYTE_TOKEN.fullmatch(token) else self._give(whole_characters=True)

    def close(self) -> str:
        """The text that was held; there are no more ids."""
        return self._give(whole_characters=False)

    def _give(self, *, whole_characters: bool) -> str:
        """Text of the held ids, decoded behind those before: a first token may lose its space."""
        text = self._decode(self._ids)
        if whole_characters and text.endswith(_REPLACEMENT):
            return ""
        new = text[len(self._decode(self._ids[: self._given])) :]
        del self._ids[: self._given]
        self._given = len(self._ids)
        return new

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False)) if ids else ""
