"""Wraps a stream of text at word boundaries, whatever pieces it comes in; pure."""

from unicodedata import east_asian_width


class WordWrap:
    """Holds back at most one unfinished word; column counts what was already given out."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._column = 0
        self._gap = ""
        self._word = ""

    def feed(self, text: str) -> str:
        """What can be printed now."""
        return "".join(self._character(character) for character in text)

    def flush(self) -> str:
        """The word held back, when no more text follows."""
        return self._place()

    def _character(self, character: str) -> str:
        if character == "\n":
            printed = self._place()
            self._column, self._gap = 0, ""
            return printed + "\n"
        if character.isspace():
            printed = self._place()
            self._gap += character
            return printed
        self._word += character
        unbreakable = east_asian_width(character) not in "WF" and _cells(self._word) < self._width
        return "" if unbreakable else self._place()

    def _place(self) -> str:
        word, gap = self._word, self._gap
        if not word:
            return ""
        self._word = self._gap = ""
        needed = _cells(gap) + _cells(word)
        if self._column and self._column + needed > self._width:
            self._column = _cells(word)
            return "\n" + word
        self._column += needed
        return gap + word


def _cells(text: str) -> int:
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)
