"""Makes docs/images/explain.png, the picture in README.md: a page of `vivit explain`, seen in Chromium.

`make picture` runs it; .ci/chromium installs Chromium where there is none.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from browser import chromium, visit

from vivit.cli.main import main

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "explain.png"
WINDOW = {"width": 1100, "height": 820}  # pixels


def take_picture(video: Path) -> None:
    """Writes the top of the page of a video, explained by the demo model, as PNG."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        report = Path(folder) / "report.html"
        if main(["explain", str(video), "-o", str(report)]):
            sys.exit(f"{video} cannot be explained")
        with visit(browser, report, viewport=WINDOW, color_scheme="light") as visited:
            visited.page.screenshot(path=str(PICTURE))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path)
    take_picture(parser.parse_args().video)
