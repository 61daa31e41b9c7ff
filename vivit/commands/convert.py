"""`vivit convert SOURCE DEST`: a checkpoint in another format, or a video model that starts from an image model."""

import argparse
from pathlib import Path
from typing import Any, get_args

from vivit.commands import outputs
from vivit.commands.chosen import add_memory, limits
from vivit.json_files import read_object
from vivit.paths import is_file
from vivit.printable import printable
from vivit.reference.config import Config, Model, Order, Pooling, Positions, named

FIELDS = ("model", "frames", "height", "width", "sampled_frames", "pooling", "order", "positions", "classes")


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "convert",
        help="write a checkpoint in another format, or start from an image model",
        example="vivit convert demo port --to huggingface\n"
        "vivit convert vit.npz new --image central_frame --config vivit-b/16x2-fe",
    )
    parser.add_argument("source", metavar="SOURCE", help="a checkpoint, a name on the hub (owner/name), or demo")
    parser.add_argument("dest", metavar="DEST", type=outputs.path, help="the folder, or .npz file, to write")
    parser.add_argument(
        "--to", choices=("vivit", "huggingface", "npz"), default="vivit", help="format (default: vivit)"
    )
    parser.add_argument("--config", metavar="NAME", help="what it is: vivit-b/16x2-fe, …, or a JSON file of fields")
    said = parser.add_argument_group("what the source does not say, or the clips that you want")
    said.add_argument("--model", choices=get_args(Model))
    for name in ("--frames", "--height", "--width", "--sampled-frames"):
        said.add_argument(name, type=int, metavar="N")
    said.add_argument("--pooling", choices=get_args(Pooling))
    said.add_argument("--order", choices=get_args(Order))
    said.add_argument("--positions", choices=get_args(Positions))
    said.add_argument("--classes", type=int, nargs="+", metavar="N", help="of each head")
    said.add_argument("--labels", help="kinetics400, something_something_v2, or a file")
    said.add_argument("--preprocessing", choices=("published", "hugging_face"), help="-1…1 or -3…1")
    add_memory(parser)
    image = parser.add_argument_group("starting from an image model (with --config)")
    image.add_argument("--image", choices=("central_frame", "inflation"), help="SOURCE is one; its kernel becomes …")
    image.add_argument("--seed", type=int, default=0, help="of what starts fresh (default: 0)")
    image.add_argument("--keep-head", action="store_true", help="the image model's head as well")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes, then prints the origin of every leaf. 0."""
    from vivit.checkpoints.image import from_image_model  # here, so that `vivit info` need not load JAX
    from vivit.checkpoints.load import load
    from vivit.checkpoints.native import stated_config
    from vivit.checkpoints.save import check_dest, check_format, save
    from vivit.demonstration import demo_checkpoint

    allowed = limits(options)
    config = None if options.config is None else read_config(options.config)
    said = {name: getattr(options, name) for name in FIELDS if getattr(options, name) is not None}
    demo = options.source == "demo" and not Path("demo").exists()
    source = str(demo_checkpoint()) if demo else options.source
    check_format(options.to, (stated_config(Path(source)) if config is None else vars(config)) | said)
    check_dest(options.dest, options.to, outputs.read_by(options, [source]))
    if options.image is None:
        if options.keep_head or options.seed:
            raise ValueError("--seed and --keep-head are for an image model: name its --image embedding")
        model = load(source, config, labels=options.labels, preprocessing=options.preprocessing, limits=allowed, **said)
    else:
        if config is None or said or options.labels or options.preprocessing:
            raise ValueError("--image takes the whole model from --config: give that, and no other field")
        choices: dict[str, Any] = dict(seed=options.seed, keep_head=options.keep_head)
        model = from_image_model(source, config, options.image, **choices, limits=allowed)
    save(options.dest, model, options.to)
    print("\n".join(map(printable, str(model.report).splitlines())))
    lost = " (weights alone: labels, preprocessing and config are not in it)" if options.to == "npz" else ""
    outputs.say_written(options.dest, f"wrote {options.dest}: {options.to}{lost}")
    return 0


def read_config(name: str) -> Config:
    """A named variant, or the fields in a JSON file."""
    if not is_file(name):
        return named(name)
    return read_object(name).made(Config)
