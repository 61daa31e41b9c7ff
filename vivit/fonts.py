"""Fonts for the letters of any script, in pictures that Matplotlib draws: found among those of this machine.

A letter that the usual font lacks is drawn in the first other one that has it. What none has is said, by script.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

PLACEHOLDERS = ("Last Resort", "STIXNonUnicode", "STIXSize", "cm")  # families whose letters are not what they stand for
KIND = re.compile(" (?:LETTER|CAPITAL|SMALL|VOWEL|CONSONANT|SYLLAB|SIGN|IDEOGRAPH)")  # what follows a script in a name
HAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO")  # scripts that share a font


def fit(text: Any) -> set[str]:
    """Gives a matplotlib.text.Text what fonts its letters need beside its own. Returns the letters that none has."""
    families = list(text.get_fontfamily())
    missing = {letter for letter in text.get_text() if not letter.isspace() and not _unseen(letter)}
    for family in families:
        missing -= _had_by(_file(family, text), missing)
    for family, files in _families().items() if missing else ():
        if any(_had_by(file, missing) for file in files):
            families.append(family)
            missing -= _had_by(_file(family, text), missing)
        if not missing:
            break
    text.set_fontfamily(families)
    return missing


def excuse(missing: Iterable[str]) -> str:
    """Which fonts are missing for these letters, in one line; "" for none."""
    scripts: dict[str, str] = {}
    for letter in sorted(missing):
        scripts.setdefault(_font(_script(letter)), letter)
    fonts = (f"{font} (for U+{ord(letter):04X})" for font, letter in scripts.items())
    return f"No font of this machine has all letters: install {', '.join(fonts)}" if scripts else ""


def _unseen(letter: str) -> bool:
    """Whether it only changes how its neighbours look: a joiner, a variation selector."""
    return unicodedata.category(letter) == "Cf" or unicodedata.name(letter, "").startswith("VARIATION SELECTOR")


def _script(letter: str) -> str:
    """As the Unicode name of a letter begins, OLD PERSIAN SIGN A; "" for what is of no script."""
    name = unicodedata.name(letter, "")
    if unicodedata.category(letter)[0] not in "LM" or not name:
        return ""
    script = KIND.split(name, maxsplit=1)[0] if KIND.search(name) else name.split()[0]
    return "CJK" if script.split()[0] in HAN else script


def _font(script: str) -> str:
    """One that has the script, and is free."""
    return f"Noto Sans {script if script == 'CJK' else script.title()}" if script else "Noto Emoji or Noto Sans Symbols"


def _had_by(file: str, letters: set[str]) -> set[str]:
    codes = _codes(file)
    return {letter for letter in letters if ord(letter) in codes}


def _file(family: str, text: Any) -> str:
    """Of the font that Matplotlib takes of a family for this text: the bold one may have fewer letters."""
    from matplotlib.font_manager import fontManager

    properties = text.get_fontproperties().copy()
    properties.set_family(family)
    return fontManager.findfont(properties)


@cache
def _codes(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):  # a font that FreeType cannot read
        return frozenset()


@cache
def _families() -> dict[str, list[str]]:
    """The files of those that Matplotlib knows, and those installed since it looked: fonts without serifs first."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {font.fname for font in fontManager.ttflist}
    for file in findSystemFonts():
        if file not in known:
            try:
                fontManager.addfont(file)
            except (OSError, RuntimeError):
                continue
    found: dict[str, list[str]] = {}
    for font in sorted(fontManager.ttflist, key=lambda font: ("Sans" not in font.name, font.name)):
        if not font.name.startswith(PLACEHOLDERS):
            found.setdefault(font.name, []).append(font.fname)
    return found
