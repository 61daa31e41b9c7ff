"""Names of files and classes as any reader can show them, whatever characters they are made of."""


def printable(text: str) -> str:
    """What is not printable, such as control codes and lone surrogates, becomes a question mark in a diamond."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
