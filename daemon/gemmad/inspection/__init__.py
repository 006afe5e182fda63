"""Looks into the files of a pair in a disposable process, and says what they are."""
