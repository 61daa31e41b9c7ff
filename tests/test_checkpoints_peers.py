"""Live parity with transformers, timm and lucidrains: logits, hidden states and gradients, weights that are random."""

from dataclasses import replace

import jax
import numpy as np
import peers
import pytest
from accuracy import assert_same
from strategies import random_params, video

import vivit
from bench.peers import lucidrains, weights
from vivit.checkpoints import torch_names
from vivit.checkpoints.huggingface import GELU
from vivit.checkpoints.image_source import read_image_model
from vivit.checkpoints.name_map import read_params
from vivit.pretrained import Model
from vivit.reference import layers
from vivit.reference import models as reference
from vivit.reference.config import named
from vivit.reference.params import leaves
from vivit.video.preprocessing import HUGGING_FACE, PUBLISHED, Preprocessing

CONFIG = replace(named("vivit-tiny/8x2"), frames=6)
SIZES = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, image_size=32)
NAMES = ["cat", "dog", "fish", "bird", "worm"]


def port(transformers, kind, **fields):
    config = transformers.VivitConfig(
        num_frames=6, tubelet_size=[2, 8, 8], id2label=dict(enumerate(NAMES)), **SIZES, **fields
    )
    return getattr(transformers, kind)(config)


def pixels(torch, clip):
    return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 1, 4, 2, 3)))


def gradients(loaded, module, config, **options):
    """Their gradients as our tree, by the very names that weights are read by."""
    arrays = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    arrays = torch_names.timm_names(arrays) if "timm" in options else torch_names.plain_names(arrays)
    spelled = torch_names.name_map(config, image=config.frames == 1)
    return read_params(arrays, spelled, config, "gradients", np.asarray)[0]


def assert_gradients(loaded, clip, module, config, **options):
    def loss(params):
        return (vivit.forward(params, clip, config) ** 2).mean()

    ours = dict(leaves(jax.grad(loss)(loaded)))
    for path, expected in leaves(gradients(loaded, module, config, **options)):
        assert_same(ours[path], expected, 1e-5)


@pytest.mark.parametrize("activation", ["gelu_fast", "gelu_python"])
def test_the_ports_classifier_loads_with_its_logits_hidden_states_and_gradients(activation, tmp_path):
    torch, transformers = peers.transformers()
    module = peers.randomised(torch, port(transformers, "VivitForVideoClassification", hidden_act=activation))
    module.save_pretrained(tmp_path / "port", max_shard_size="60KB")
    assert (tmp_path / "port" / "model.safetensors.index.json").exists()
    loaded = vivit.load(tmp_path / "port")
    assert loaded.labels == (tuple(NAMES),)
    clip = video(CONFIG, 1)
    theirs = module(pixel_values=pixels(torch, clip), output_hidden_states=True)
    stages = {}
    assert_same(loaded.logits(clip, capture=stages), theirs.logits.detach().numpy(), 1e-5)
    states = ["encoder/tokens", *(f"encoder/{index}/out" for index in range(3))]
    assert len(theirs.hidden_states) == 4
    for state, expected in zip(states, theirs.hidden_states, strict=True):
        assert_same(stages[state], expected.detach().numpy(), 1e-5)
    (theirs.logits**2).mean().backward()
    assert_gradients(loaded.params, clip, module, loaded.config)


def test_the_bare_port_loads_with_its_pooler(tmp_path):
    torch, transformers = peers.transformers()
    module = peers.randomised(torch, port(transformers, "VivitModel"))
    module.save_pretrained(tmp_path / "port")
    loaded = vivit.load(tmp_path / "port")
    clip = video(CONFIG, 2)
    theirs = module(pixel_values=pixels(torch, clip))
    stages = {}
    assert_same(loaded.logits(clip, capture=stages), theirs.pooler_output.detach().numpy(), 1e-5)
    assert_same(stages["encoder/norm"], theirs.last_hidden_state.detach().numpy(), 1e-5)


@pytest.mark.parametrize("fields", [dict(gelu="erf", epsilon=1e-12), dict(classes=()), dict(height=24, width=40)])
def test_what_we_export_the_port_loads_with_the_same_logits(fields, tmp_path):
    torch, transformers = peers.transformers()
    config = replace(CONFIG, **fields)
    ours = Model(config=config, params=random_params(config), labels=(tuple(NAMES),) if config.classes else None)
    vivit.save(ours, tmp_path / "port", to="huggingface")
    kind, options = transformers.VivitForVideoClassification, {}
    if not config.classes:
        kind, options = transformers.VivitModel, dict(add_pooling_layer=False)
    module, report = kind.from_pretrained(tmp_path / "port", output_loading_info=True, **options)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    clip = video(config, 3)
    with torch.no_grad():
        theirs = module.eval()(pixel_values=pixels(torch, clip))
    expected = theirs.logits if config.classes else theirs.last_hidden_state[:, 0]
    assert_same(ours.logits(clip), expected.numpy(), 1e-5)
    if config.classes:
        assert [module.config.id2label[index] for index in range(5)] == NAMES


PREPROCESSINGS = [
    PUBLISHED,
    HUGGING_FACE,
    Preprocessing(rescale=1 / 255, offset=0.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
]


@pytest.fixture(params=PREPROCESSINGS, ids=["published", "hugging_face", "imagenet"])
def processed(request, tmp_path):
    """(a folder of the port, frames larger than the model's crop, what our preprocessing makes of the crop)."""
    preprocessing = replace(request.param, resize=36, crop=(32, 32))
    vivit.save(
        Model(config=CONFIG, params=random_params(CONFIG), preprocessing=preprocessing),
        tmp_path / "port",
        to="huggingface",
    )
    frames = np.random.default_rng(4).integers(0, 256, (6, 36, 40, 3), np.uint8)
    return tmp_path / "port", frames, preprocessing.normalise(frames[:, 2:-2, 4:-4])


def test_the_ports_image_processor_and_ours_give_the_same_pixels(processed):
    _, transformers = peers.transformers()
    folder, frames, ours = processed
    processor = transformers.VivitImageProcessor.from_pretrained(folder)
    theirs = processor(list(frames), return_tensors="np")["pixel_values"]
    assert_same(ours[np.newaxis], theirs.transpose(0, 1, 3, 4, 2), 1e-5)


def test_todays_video_processor_and_ours_give_the_same_pixels(processed, tmp_path, monkeypatch):
    """Its own reader and arithmetic; what it takes from torchvision stands here as torchvision documents it."""
    torch, processors = peers.video_processors()
    folder, frames, ours = processed
    found, _ = processors.VivitVideoProcessor.get_video_processor_dict(folder)
    assert found["video_processor_type"] == "VivitVideoProcessor"
    processor = processors.VivitVideoProcessor.from_pretrained(folder)
    assert processor.num_frames == 6

    def normalize(self, images, mean, std):
        return (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    def center_crop(self, images, size):
        top, left = (images.shape[-2] - size.height) // 2, (images.shape[-1] - size.width) // 2
        return images[..., top : top + size.height, left : left + size.width]

    for part in (normalize, center_crop):
        monkeypatch.setattr(processors.VivitVideoProcessor, part.__name__, part)
    theirs = processor(frames, do_resize=False, do_convert_rgb=False, return_tensors="np")["pixel_values"]
    assert_same(ours[np.newaxis], theirs.transpose(0, 1, 3, 4, 2), 1e-5)
    processor.save_pretrained(folder)  # beside ours, under today's name
    (folder / "preprocessor_config.json").unlink()
    assert_same(vivit.load(folder).preprocessing.normalise(frames[:, 2:-2, 4:-4]), ours, 1e-6)


def test_their_activations_are_the_gelus_that_they_are_read_as():
    torch, transformers = peers.transformers()
    x = np.linspace(-6, 6, 1001)
    for name, form in GELU.items():
        theirs = transformers.activations.ACT2FN[name](torch.from_numpy(x)).numpy()
        assert_same(layers.gelu(x, form), theirs, 1e-9)


def test_an_image_vit_of_transformers_is_read_with_its_hidden_states_and_gradients(tmp_path):
    torch, transformers = peers.transformers()
    module = transformers.ViTForImageClassification(
        transformers.ViTConfig(patch_size=8, id2label=dict(enumerate(NAMES)), **SIZES)
    )
    module = peers.randomised(torch, module)
    module.save_pretrained(tmp_path / "vit")
    image = read_image_model(tmp_path / "vit", heads=1, head=True)
    assert (image.config.gelu, image.config.epsilon, image.labels) == ("erf", 1e-12, (tuple(NAMES),))
    picture = video(image.config, 5)
    theirs = module(pixel_values=pixels(torch, picture)[:, 0], output_hidden_states=True)
    stages = {}
    logits = vivit.forward(image.params, picture, image.config, capture=stages)
    assert_same(logits, theirs.logits.detach().numpy(), 1e-5)
    for index, expected in enumerate(theirs.hidden_states[1:]):
        assert_same(stages[f"encoder/{index}/out"], expected.detach().numpy(), 1e-5)
    (theirs.logits**2).mean().backward()
    assert_gradients(image.params, picture, module, image.config)


TIMM = [{}, dict(init_values=0.1), dict(class_token=False, global_pool="avg", fc_norm=False)]


@pytest.mark.parametrize("fields", TIMM)
def test_an_image_vit_of_timm_is_read_with_its_logits(fields, tmp_path):
    timm = peers.timm()
    torch, _ = peers.transformers()
    from safetensors.torch import save_file

    module = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=4, mlp_ratio=2, num_classes=5, **fields
    )
    module = peers.randomised(torch, module)
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    image = read_image_model(tmp_path / "model.safetensors", heads=4, head=True)
    picture = video(image.config, 6)
    theirs = module(pixels(torch, picture)[:, 0])
    assert_same(vivit.forward(image.params, picture, image.config), theirs.detach().numpy(), 1e-5)
    if not fields:
        (theirs**2).mean().backward()
        assert_gradients(image.params, picture, module, image.config, timm=True)


def test_lucidrains_model_2_has_the_references_logits():
    pytest.importorskip("torch", reason="the [peers] extra is not installed")
    pytest.importorskip("einops", reason="the [peers] extra is not installed")
    config = replace(named("vivit-tiny/8x2-fe"), frames=6, height=24)
    params, clip = weights(config), video(config, 2)
    expected = reference.forward(params, clip, config)
    assert_same(lucidrains(params, clip, config, "float32")(), expected, 1e-5)
