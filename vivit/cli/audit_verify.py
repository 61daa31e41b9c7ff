"""`vivit audit --verify DIR --checkpoint PATH`: checks the files of a dossier, and recomputes what it says."""

import argparse
import json

from vivit.cli.arguments import load_model
from vivit.cli.audit_checkpoint import against, steps_progress
from vivit.cli.console import console, say
from vivit.files.atomic import write_text
from vivit.files.paths import printable


def run(options: argparse.Namespace) -> int:
    """Returns the exit code: 0 if nothing refutes the dossier, else 1."""
    from vivit.audit.signing import check_key
    from vivit.audit.verification import verify  # here, so that `vivit info` need not load JAX

    if options.dossier is not None:
        raise ValueError("--dossier writes a dossier: omit it with --verify")
    if options.against is not None and options.video is None:
        raise ValueError("--against needs the video again: name it with --verify")
    if options.public_key is not None:
        check_key(options.public_key)
    with steps_progress() as progress:
        result = verify(
            options.verify,
            lambda: load_model(options)[0],
            public_key=options.public_key,
            video=options.video,
            against=against(options, options.video),
            progress=progress,
        )
    text = json.dumps({"verified": not result.faults, **result._asdict()}, indent=1, ensure_ascii=False) + "\n"
    if options.output is not None:
        write_text(options.output, text)
    if options.json:
        print(text, end="")
        return 1 if result.faults else 0
    out = console()
    for line in (*(f"note: {note}" for note in result.notes), *(f"FAIL {fault}" for fault in result.faults)):
        say(printable(line), out, soft_wrap=True)
    say(printable(f"{options.verify} is {'refuted' if result.faults else f'verified: {result.checked}'}."), out)
    return 1 if result.faults else 0
