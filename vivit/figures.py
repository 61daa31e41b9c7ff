"""Draws figures with Matplotlib: empty figures, fonts for the letters of any script, and PNG files.

pyplot is not used: there is no global state, no display is needed, and threads can draw. A letter that the default font
lacks is drawn in another installed font that has it. If no font has it, the figure names the font to install. Texts
are created with parse_math=False, so that a $ is not a formula.
"""

import re
import unicodedata
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from vivit.files.atomic import check_writable, write_file
from vivit.files.paths import printable

DOTS = 120  # per inch


def check_installed() -> None:
    """Raises ValueError, with the install command, if Matplotlib is missing."""
    _matplotlib()


def new_figure(width: float, height: float, **options: Any) -> Any:
    """Returns an empty matplotlib.figure.Figure. width, height: in inches. options: passed to Figure.

    Raises ValueError without Matplotlib.
    """
    figure_of, canvas = _matplotlib()
    figure = figure_of(figsize=(width, height), dpi=DOTS, **options)
    canvas(figure)
    return figure


def write_png(figure: Any, png: Path, *, tight: bool = False) -> str:
    """Writes a PNG file atomically, with fonts for all letters. Adds a line below that names missing fonts.

    tight: crop to the drawn area. Returns that line, or "". Raises ValueError if the file cannot be written.
    """
    from matplotlib.text import Text

    check_writable(png)
    missing = missing_fonts(set[str]().union(*(add_fonts(text) for text in figure.findobj(Text))))
    if missing:
        figure.text(0.005, 0.005, missing, fontsize=7, va="bottom", wrap=True, parse_math=False)
    options = dict(bbox_inches="tight", pad_inches=0.15) if tight else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        write_file(png, lambda temporary: figure.savefig(temporary, format="png", **options))
    return missing


def shorten(name: str, longest: int = 40) -> str:
    """Returns a name shortened to `longest` characters, with unprintable characters replaced."""
    name = printable(name)
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _matplotlib() -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError('Matplotlib is not installed: install it with: pip install "vivit[plot]"') from None
    return Figure, FigureCanvasAgg


PLACEHOLDERS = ("Last Resort", "STIXNonUnicode", "STIXSize", "cm")  # families with placeholder glyphs
KIND = re.compile(" (?:LETTER|CAPITAL|SMALL|VOWEL|CONSONANT|SYLLAB|SIGN|IDEOGRAPH)")  # follows a script in a name
HAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO")  # scripts that share a font


def add_fonts(text: Any) -> set[str]:
    """Adds fonts to a matplotlib.text.Text for letters that its own font lacks. Returns letters that no font has."""
    families = list(text.get_fontfamily())
    missing = {letter for letter in text.get_text() if not letter.isspace() and not _has_no_glyph(letter)}
    for family in families:
        missing -= _letters_in(_font_file(family, text), missing)
    for family, files in _families().items() if missing else ():
        if any(_letters_in(file, missing) for file in files):
            families.append(family)
            missing -= _letters_in(_font_file(family, text), missing)
        if not missing:
            break
    text.set_fontfamily(families)
    return missing


def missing_fonts(missing: Iterable[str]) -> str:
    """Returns one line that names the fonts to install for these letters, or ""."""
    scripts: dict[str, str] = {}
    for letter in sorted(missing):
        scripts.setdefault(_font_of(_script(letter)), letter)
    fonts = (f"{font} (for U+{ord(letter):04X})" for font, letter in scripts.items())
    return f"No font of this machine has all letters: install {', '.join(fonts)}" if scripts else ""


def _has_no_glyph(letter: str) -> bool:
    """Returns True for a letter without a glyph of its own: a joiner or a variation selector."""
    return unicodedata.category(letter) == "Cf" or unicodedata.name(letter, "").startswith("VARIATION SELECTOR")


def _script(letter: str) -> str:
    """Returns the script from a letter's Unicode name ("OLD PERSIAN" of OLD PERSIAN SIGN A), or "" for a symbol."""
    name = unicodedata.name(letter, "")
    if unicodedata.category(letter)[0] not in "LM" or not name:
        return ""
    script = KIND.split(name, maxsplit=1)[0] if KIND.search(name) else name.split()[0]
    return "CJK" if script.split()[0] in HAN else script


def _font_of(script: str) -> str:
    """Returns a free font that has the script."""
    return f"Noto Sans {script if script == 'CJK' else script.title()}" if script else "Noto Emoji or Noto Sans Symbols"


def _letters_in(file: str, letters: set[str]) -> set[str]:
    codes = _codes(file)
    return {letter for letter in letters if ord(letter) in codes}


def _font_file(family: str, text: Any) -> str:
    """Returns the font file that Matplotlib uses for a family in this text's style (a bold font may lack letters)."""
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
    """Returns the files of every font family, sans serif first, including fonts installed after Matplotlib's scan."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {font.fname for font in fontManager.ttflist}
    for file in findSystemFonts():
        if file not in known:
            try:
                fontManager.addfont(file)
            except (OSError, RuntimeError):
                continue
    families: dict[str, list[str]] = {}
    for font in sorted(fontManager.ttflist, key=lambda font: ("Sans" not in font.name, font.name)):
        if not font.name.startswith(PLACEHOLDERS):
            families.setdefault(font.name, []).append(font.fname)
    return families
