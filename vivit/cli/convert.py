"""`vivit convert SOURCE DEST`: converts a checkpoint to another format, or builds a video model from an image model."""

import argparse
from pathlib import Path
from typing import Any, get_args

from vivit.cli import outputs
from vivit.cli.arguments import add_memory, limits
from vivit.cli.parser import Parser
from vivit.files.json_files import read_object
from vivit.files.paths import is_file, printable
from vivit.reference.config import Config, Model, Order, Pooling, Positions, named

FIELDS = ("model", "frames", "height", "width", "sampled_frames", "pooling", "order", "positions", "classes")


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    parser.show_examples(
        "vivit convert demo port --to huggingface\n"
        "vivit convert vit.npz new --image central_frame --config vivit-b/16x2-fe"
    )
    parser.add_argument("source", metavar="SOURCE", help="a checkpoint, a name on the hub (owner/name), or demo")
    parser.add_argument("dest", metavar="DEST", type=outputs.path, help="the folder or .npz file to write")
    parser.add_argument(
        "--to", choices=("vivit", "huggingface", "npz"), default="vivit", help="format (default: vivit)"
    )
    parser.add_argument(
        "--config", metavar="NAME", help="config of the model: vivit-b/16x2-fe, …, or a JSON file of its fields"
    )
    overrides = parser.add_argument_group("fields that the source does not record, and another clip size")
    overrides.add_argument("--model", choices=get_args(Model))
    for name in ("--frames", "--height", "--width", "--sampled-frames"):
        overrides.add_argument(name, type=int, metavar="N")
    overrides.add_argument("--pooling", choices=get_args(Pooling))
    overrides.add_argument("--order", choices=get_args(Order))
    overrides.add_argument("--positions", choices=get_args(Positions))
    overrides.add_argument("--classes", type=int, nargs="+", metavar="N", help="number of classes of each head")
    overrides.add_argument("--labels", help="kinetics400, something_something_v2, or a file of names")
    overrides.add_argument(
        "--preprocessing", choices=("published", "hugging_face"), help="range of the pixels: -1…1 or -3…1"
    )
    add_memory(parser)
    image = parser.add_argument_group("starting from an image model (with --config)")
    image.add_argument(
        "--image",
        choices=("central_frame", "inflation"),
        help="SOURCE is an image model; how its kernel fills the tubelet",
    )
    image.add_argument("--seed", type=int, default=0, help="seed of fresh weights (default: 0)")
    image.add_argument("--keep-head", action="store_true", help="keep the image model's head")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the checkpoint and prints the source of every leaf. Returns the exit code 0."""
    from vivit.checkpoints.native import read_config_fields
    from vivit.checkpoints.save import check_dest, check_format, save
    from vivit.demo import demo_checkpoint
    from vivit.pretrained import from_image_model, load  # here, so that `vivit info` need not load JAX

    allowed = limits(options)
    config = None if options.config is None else read_config(options.config)
    overrides = {name: getattr(options, name) for name in FIELDS if getattr(options, name) is not None}
    demo = options.source == "demo" and not Path("demo").exists()
    source = str(demo_checkpoint()) if demo else options.source
    check_format(options.to, (read_config_fields(Path(source)) if config is None else vars(config)) | overrides)
    check_dest(options.dest, options.to, outputs.input_files(options, [source]))
    if options.image is None:
        if options.keep_head or options.seed:
            raise ValueError("--seed and --keep-head apply to an image model: pass --image as well")
        model = load(
            source, config, labels=options.labels, preprocessing=options.preprocessing, limits=allowed, **overrides
        )
    else:
        if config is None or overrides or options.labels or options.preprocessing:
            raise ValueError("--image takes all fields from --config: pass --config and no other field")
        choices: dict[str, Any] = dict(seed=options.seed, keep_head=options.keep_head)
        model = from_image_model(source, config, options.image, **choices, limits=allowed)
    save(model, options.dest, options.to)
    print("\n".join(map(printable, str(model.report).splitlines())))
    note = " (weights only: without labels, preprocessing and config)" if options.to == "npz" else ""
    outputs.report_written(options.dest, f"wrote {options.dest}: {options.to}{note}")
    return 0


def read_config(name: str) -> Config:
    """Returns a named variant, or the Config in a JSON file."""
    if not is_file(name):
        return named(name)
    return read_object(name).build(Config)
