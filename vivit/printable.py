"""Names of files and classes as any reader can show them, whatever characters they are made of."""

JOINERS = "\u200c\u200d"  # how Persian, Hindi and others spell which letters join


def printable(text: str) -> str:
    """What is not printable, such as control codes and lone surrogates, becomes a question mark in a diamond."""
    return "".join(
        letter if letter.isprintable() or letter in JOINERS else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
