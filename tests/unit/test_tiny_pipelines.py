"""Every editor over its real diffusers class in a tiny configuration, from a folder that `from_pretrained` reads."""

import copy
import json
import re
import shutil
from contextlib import contextmanager
from unittest.mock import patch

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as qwen
from PIL import Image
from torch.nn import functional

from editloop.data.picture_file import MAX_ASPECT_RATIO, SHORTEST_SIDE
from editloop.errors import EditLoopError
from editloop.models.editors.adapted_linear import ADAPTER, AdaptedLinear
from editloop.models.editors.opening import open_editor, outline_editor
from editloop.models.editors.protocol import Conditioning, join_conditions
from editloop.models.editors.qwen_edit_plus import marked_pictures
from editloop.models.editors.sampling import edit, integrate, working_picture
from editloop.models.editors.settings import SETTINGS, read_editor_preset
from editloop.models.editors.task_check import AskedTask, check_tasks
from editloop.training.engine import enable_gradient_checkpointing
from tests.tiny_editors import AREA, FLUX2_KINDS, KINDS, OWN_KINDS, PARTS_TEMPLATE, build_tiny_editor, write_tiny_editor

pytestmark = pytest.mark.floats

STEPS = 3
SEVERAL_SOURCES = ("qwen-edit-plus", "qwen-edit-2511", *FLUX2_KINDS, "omnigen2")
"""Editors that take reference images."""
TASKS = ("make the circle red", "remove the blue square", "move the star")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("editors")
    return {kind: write_tiny_editor(kind, root / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def editors(folders):
    """Opened once: for tests that leave them as they are."""
    return {kind: open_editor(folder) for kind, folder in folders.items()}


@pytest.fixture
def opened(editors):
    """Gives one with a network of its own, for tests that change it. The other parts are shared."""

    def opened(kind):
        pipeline = copy.copy(editors[kind].pipeline)
        pipeline.register_modules(transformer=copy.deepcopy(pipeline.transformer))
        return type(editors[kind])(pipeline, editors[kind].settings)

    return opened


@pytest.fixture(scope="module")
def encoded(editors):
    """Two tasks of 32x64, encoded once by each editor."""
    return {kind: editor.encode(TASKS[:2], sources((32, 64), 2)) for kind, editor in editors.items()}


def sources(size, count=1):
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def pipelines_own(editor, kind, noise, source, guidance, references=()):
    """Final latents and the picture, 0..1, of the pipeline's own call with the first task."""
    height, width = source.shape[:2]
    seen = []
    told = {
        "image": Image.fromarray(source),
        "prompt": TASKS[0],
        "num_inference_steps": STEPS,
        "height": height,
        "width": width,
        "output_type": "np",
        "latents": noise,
        "callback_on_step_end": lambda _, step, time, values: seen.append(values["latents"]) or values,
    }
    if kind in FLUX2_KINDS:
        told |= {"guidance_scale": guidance, "text_encoder_out_layers": (1, 2, 3)}
        told["max_sequence_length"] = editor.settings.text_tokens
        told["latents"] = noise.transpose(1, 2).unflatten(2, editor.grid((height, width)))
    elif kind.startswith("kontext"):
        told |= {"max_area": height * width, "_auto_resize": False, "max_sequence_length": 12}
        distilled = {"guidance_scale": guidance}
        told |= distilled if kind == "kontext" else {"true_cfg_scale": guidance, "negative_prompt": ""}
    if references:
        told["image"] = [Image.fromarray(picture) for picture in (source, *references)]
    if kind.startswith("qwen"):
        told |= {"true_cfg_scale": guidance, "negative_prompt": " "}
        with marked_pictures(editor.pipeline.text_encoder):
            return seen, editor.pipeline(**told).images[0]
    return seen, editor.pipeline(**told).images[0]


def test_the_source_has_rows_and_columns_for_qwens_text_encoder(editors, monkeypatch):
    editor = editors["qwen-edit-plus"]
    inner, positions = editor.pipeline.text_encoder.model.language_model, []
    forward = inner.forward
    monkeypatch.setattr(
        inner, "forward", lambda **inputs: positions.append(inputs["position_ids"]) or forward(**inputs)
    )
    editor.encode(TASKS[:1], sources((32, 64)))
    time, rows, columns = positions[0][-3:, 0]
    assert not torch.equal(time, rows)
    assert not torch.equal(rows, columns)


@pytest.mark.parametrize(
    ("shape", "guidance"), [((1, 1), 3.0), ((1, 2), 1.0), ((2, 1), 3.0)], ids=["square", "wide, alone", "high"]
)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OWN_KINDS])
def test_sampling_equals_the_pipelines_own_call(editors, monkeypatch, kind, shape, guidance):
    monkeypatch.setattr(qwen, "VAE_IMAGE_SIZE", AREA)
    monkeypatch.setattr(qwen, "CONDITION_IMAGE_SIZE", AREA)
    editor = editors[kind]
    unit = 64 if kind in FLUX2_KINDS else 32
    size = (unit * shape[0], unit * shape[1])
    source = sources(size)
    condition = editor.encode(TASKS[:1], source)
    noise = editor.noise(1, size, torch.Generator().manual_seed(3))
    x = integrate(editor, noise, condition, editor.sigmas(STEPS, size), guidance)
    latents, picture = pipelines_own(editor, kind, noise, source[0], guidance)
    torch.testing.assert_close(x, latents[-1], atol=2e-5, rtol=2e-5)
    assert np.abs(editor.decode(x, size)[0] / 255 - picture).max() <= 0.51 / 255
    if guidance > 1 and kind != "klein-distilled":
        plain = integrate(editor, noise, condition, editor.sigmas(STEPS, size), 1.0)
        assert (plain - x).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("shapes", "guidance"),
    [([(1, 2), (1, 1)], 3.0), ([(1, 1), (2, 1), (1, 2)], 1.0), ([(1, 1)] * 3, 3.0)],
    ids=["two sources", "three of three shapes, alone", "three of one shape"],
)
@pytest.mark.parametrize("kind", [kind for kind in SEVERAL_SOURCES if kind not in OWN_KINDS])
def test_sampling_with_several_sources_equals_the_pipelines_own_call(editors, monkeypatch, kind, shapes, guidance):
    monkeypatch.setattr(qwen, "VAE_IMAGE_SIZE", AREA)
    monkeypatch.setattr(qwen, "CONDITION_IMAGE_SIZE", AREA)
    editor = editors[kind]
    unit = 64 if kind in FLUX2_KINDS else 32
    sizes = [(unit * rows, unit * columns) for rows, columns in shapes]
    source, *references = (255 - number * 60 - sources(size) // 2 for number, size in enumerate(sizes))
    condition = editor.encode(TASKS[:1], source, references)
    assert (condition.size, condition.references) == (sizes[0], tuple(sizes[1:]))
    noise = editor.noise(1, sizes[0], torch.Generator().manual_seed(3))
    x = integrate(editor, noise, condition, editor.sigmas(STEPS, sizes[0]), guidance)
    latents, picture = pipelines_own(editor, kind, noise, source[0], guidance, [one[0] for one in references])
    torch.testing.assert_close(x, latents[-1], atol=2e-5, rtol=2e-5)
    assert np.abs(editor.decode(x, sizes[0])[0] / 255 - picture).max() <= 0.51 / 255
    first = integrate(editor, noise, editor.encode(TASKS[:1], source), editor.sigmas(STEPS, sizes[0]), guidance)
    assert (first - x).abs().max() > 1e-3
    if len(references) > 1 and references[0].shape == references[1].shape:
        turned = editor.encode(TASKS[:1], source, references[::-1])
        assert (integrate(editor, noise, turned, editor.sigmas(STEPS, sizes[0]), guidance) - x).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_encoded_and_edited_alike_alone_and_among_others_of_all_shapes(editors, kind):
    editor = editors[kind]
    sizes = [(32, 64), (32, 32), (32, 64)]
    pictures = [sources(size)[0] for size in sizes]
    made = edit(editor, TASKS, pictures, seeds=[1, 2, 3], steps=2)
    assert [one.shape[:2] for one in made] == sizes
    for place in range(3):
        alone = edit(editor, TASKS[place : place + 1], pictures[place : place + 1], seeds=[place + 1], steps=2)[0]
        assert np.abs(alone.astype(int) - made[place].astype(int)).max() <= 1
    condition = editor.encode([TASKS[0], TASKS[2]], np.stack(pictures[::2]))
    assert len(condition) == 2
    x, sigma = editor.noise(2, (32, 64), torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.9])
    rows = condition.select(torch.tensor([1, 1]))
    with torch.no_grad():
        velocity = editor.velocity(x, sigma, condition, 3.0)
        assert velocity.dtype == torch.float32
        torch.testing.assert_close(editor.velocity(x, sigma, rows, 3.0)[1], velocity[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_that_were_encoded_apart_are_joined(editors, kind):
    editor = editors[kind]
    pictures = sources((32, 32), 2)
    texts = ["remove it", "make the very large red circle in the middle blue and move it"]
    apart = join_conditions(
        [editor.encode([text], picture[None]) for text, picture in zip(texts, pictures, strict=True)]
    )
    x, sigma = editor.noise(2, (32, 32), torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.9])
    with torch.no_grad():
        together = editor.velocity(x, sigma, editor.encode(texts, pictures), 3.0)
        torch.testing.assert_close(editor.velocity(x, sigma, apart, 3.0), together, atol=1e-5, rtol=1e-5)


@contextmanager
def calls_of_adapters(editor):
    """The calls of the adapter's low-rank layers: of PEFT's `lora_A`, which are asked through their weights here."""
    real, calls = functional.linear, []
    down = {id(layer.lora_A[ADAPTER].weight) for layer in editor.network.modules() if isinstance(layer, AdaptedLinear)}

    def counted(x, weight, bias=None):
        calls.extend([1] * (id(weight) in down))
        return real(x, weight, bias)

    with patch.object(functional, "linear", counted):
        yield calls


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_starts_as_nothing_keeps_its_base_and_is_saved_merged(opened, encoded, tmp_path, kind):
    editor, condition = opened(kind), encoded[kind]
    x, sigma = editor.noise(2, (32, 64), torch.Generator().manual_seed(1)), torch.full((2,), 0.5)
    with torch.no_grad():
        before = editor.velocity(x, sigma, condition)
        trained = editor.add_adapter(2, 4)
        torch.testing.assert_close(editor.velocity(x, sigma, condition), before)
    weights = {id(one) for one in trained}
    assert weights == {id(one) for one in editor.network.parameters() if one.requires_grad}
    editor.velocity(x, sigma, condition).square().mean().backward()
    assert sum(one.grad is not None and bool(one.grad.any()) for one in trained) > len(trained) // 3
    with torch.no_grad():
        for one in trained:
            one.add_(0.05)
        moved = editor.velocity(x, sigma, condition)
        assert (moved - before).abs().max() > 1e-3
        with editor.base():
            torch.testing.assert_close(editor.velocity(x, sigma, condition), before)
        with editor.merged(), calls_of_adapters(editor) as calls:
            torch.testing.assert_close(editor.velocity(x, sigma, condition), moved, atol=1e-5, rtol=1e-5)
        assert not calls, "merged, the adapter's own layers are not asked"
        assert torch.equal(editor.velocity(x, sigma, condition), moved), "the same weights as before, to the last bit"
        editor.save(tmp_path / "saved")
        torch.testing.assert_close(editor.velocity(x, sigma, condition), moved)
        again = open_editor(tmp_path / "saved")
        assert again.settings == editor.settings
        torch.testing.assert_close(again.velocity(x, sigma, condition), moved, atol=1e-4, rtol=1e-4)
    assert not list((tmp_path / "saved").rglob("*.bin"))
    told = [path.read_text() for path in (tmp_path / "saved").rglob("*.json") if "tokenizer" not in path.parent.name]
    assert not any(str(tmp_path) in text or "_name_or_path" in text for text in told), "it tells where it was made"
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    libraries = {one[0] for one in index.values() if isinstance(one, list) and one[0]}
    published = {library for library, _ in getattr(editor.pipeline, "published", {}).values()}
    assert libraries == {"diffusers", "transformers"} | published, "a released index names no module of ours"


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_network_may_be_trained_and_the_frozen_one_still_answers(opened, encoded, kind):
    editor, condition = opened(kind), encoded[kind]
    x, sigma = editor.noise(2, (32, 64), torch.Generator().manual_seed(1)), torch.full((2,), 0.5)
    with torch.no_grad():
        before = editor.velocity(x, sigma, condition)
        trained = editor.train_whole()
        assert sum(one.numel() for one in trained) == sum(one.numel() for one in editor.network.parameters())
        for one in trained:
            one.mul_(1.1)
        assert (editor.velocity(x, sigma, condition) - before).abs().max() > 1e-3
        with editor.base():
            torch.testing.assert_close(editor.velocity(x, sigma, condition), before)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_no_gradient_and_runs_the_blocks_twice(opened, encoded, kind):
    found, condition = [], encoded[kind]
    for checkpointed in (False, True):
        editor = opened(kind)
        torch.manual_seed(0)
        trained = editor.add_adapter(2, 4)
        if checkpointed:
            enable_gradient_checkpointing(editor.network)
        first = re.compile(r"(transformer_blocks|layers|refiner)\.0$")
        blocks = [module for name, module in editor.network.named_modules() if first.search(name)]
        calls = []
        for block in blocks:
            block.register_forward_pre_hook(lambda block, inputs, calls=calls: calls.append(block))
        x = editor.noise(2, (32, 64), torch.Generator().manual_seed(1))
        editor.velocity(x, torch.full((2,), 0.5), condition, 1.0).square().mean().backward()
        assert len(calls) == len(blocks) * (2 if checkpointed else 1) > 0
        found.append([one.grad for one in trained])
    torch.testing.assert_close(found[0], found[1])
    assert any(bool(gradient.any()) for gradient in found[1])


@pytest.mark.parametrize("kind", KINDS)
def test_parts_on_demand_are_read_when_used_and_leave_the_device_afterwards(folders, editors, monkeypatch, kind):
    editor = open_editor(folders[kind], on_demand=True)
    on_demand, names = editor.on_demand, sorted(["vae", *editor.text_encoders])
    assert on_demand.unread == names, "opened is not yet read"
    x = editor.noise(1, (32, 32), torch.Generator().manual_seed(0))
    torch.testing.assert_close(editor.latents(sources((32, 32))), editors[kind].latents(sources((32, 32))))
    assert on_demand.unread == sorted(editor.text_encoders), "pictures need no text encoder"
    condition, expected = (one.encode(TASKS[:1], sources((32, 32))) for one in (editor, editors[kind]))
    torch.testing.assert_close(condition.parts, expected.parts)
    assert np.array_equal(editor.decode(x, (32, 32)), editors[kind].decode(x, (32, 32)))
    assert on_demand.unread == []
    on_demand.device, to = torch.device("cuda", 7), torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *target: self.clone() if target == (on_demand.device,) else to(self, *target)
    )
    tensors = [*editor.pipeline.vae.parameters(), *editor.pipeline.vae.buffers()]
    host = [tensor.data_ptr() for tensor in tensors]
    with on_demand.on_device(["vae", "tokenizer"]):
        with on_demand.on_device(["vae"]):
            pass
        assert not {tensor.data_ptr() for tensor in tensors} & set(host)
    assert [tensor.data_ptr() for tensor in tensors] == host


@pytest.mark.parametrize("kind", ["kontext", "klein-base"])
def test_what_is_saved_is_diffusers_own(folders, kind):
    index = json.loads((folders[kind] / "model_index.json").read_text())
    pipeline = getattr(diffusers, index["_class_name"]).from_pretrained(folders[kind], local_files_only=True)
    for name, weight in build_tiny_editor(kind).network.state_dict().items():
        assert torch.equal(pipeline.transformer.state_dict()[name], weight), name


def test_flux2_dev_keeps_the_files_about_pictures_and_its_processors_published_class(folders, tmp_path):
    folder = shutil.copytree(folders["flux2-dev"], tmp_path / "flux2")
    (folder / "tokenizer" / "processor_config.json").write_text('{"patch_size": 14}')
    open_editor(folder).save(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer" / "processor_config.json").read_text() == '{"patch_size": 14}'
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    assert index["tokenizer"] == ["transformers", "PixtralProcessor"]
    assert open_editor(tmp_path / "saved").text_tokenizer.chat_template == PARTS_TEMPLATE


def test_flux2_devs_instructions_are_padded_and_cut_to_one_length_without_a_warning(editors, caplog):
    editor = editors["flux2-dev"]
    length = editor.settings.text_tokens
    short, long = (
        editor.encode([text], sources((32, 32))).parts["prompt"] for text in ("move it", "move it " * length)
    )
    assert short.shape == long.shape == (1, length, 96)
    assert not [record for record in caplog.records if "processor_kwargs" in record.getMessage()]


def test_flux2_devs_chat_template_may_lie_where_transformers_4_had_it_but_not_be_missing(folders, tmp_path):
    folder = shutil.copytree(folders["flux2-dev"], tmp_path / "flux2")
    template, former = folder / "tokenizer" / "chat_template.jinja", folder / "tokenizer" / "chat_template.json"
    former.write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()
    assert open_editor(folder).text_tokenizer.chat_template == PARTS_TEMPLATE
    for content in ("{", "[]", "{}"):
        former.write_text(content)
        with pytest.raises(EditLoopError, match=r"tokenizer: the text encoder's processor has no chat template\. Put"):
            open_editor(folder)


def test_qwens_later_network_reads_the_source_at_noise_level_0(folders, editors, tmp_path):
    folder = shutil.copytree(folders["qwen-edit-2511"], tmp_path / "qwen")
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"zero_cond_t": False}))
    later, earlier = editors["qwen-edit-2511"], open_editor(folder)
    x = later.noise(1, (32, 32), torch.Generator().manual_seed(1))
    condition = later.encode(TASKS[:1], sources((32, 32)))
    with torch.no_grad():
        clean, moving = (
            [editor.velocity(x, torch.tensor([sigma]), condition, 1.0) for sigma in (0.0, 0.7)]
            for editor in (later, earlier)
        )
    torch.testing.assert_close(clean[0], moving[0])
    assert (clean[1] - moving[1]).abs().max() > 1e-3


def test_bfloat16_multiplies_coarsely_and_answers_in_float32(opened):
    editor = opened("klein-base")
    condition = editor.encode(TASKS[:1], sources((32, 32)))
    x, sigma = editor.noise(1, (32, 32), torch.Generator().manual_seed(1)), torch.full((1,), 0.5)
    with torch.no_grad():
        exact = editor.velocity(x, sigma, condition)
        editor.bf16 = True
        coarse = editor.velocity(x, sigma, condition)
    assert coarse.dtype == torch.float32
    assert 0 < (coarse - exact).abs().max() < 0.1


def test_what_an_editor_cannot_do_is_refused_by_name(editors, folders, tmp_path):
    editor = editors["qwen-edit-plus"]
    with pytest.raises(EditLoopError, match=r"no linear layer of the asked name: to_qkv\. Name ends.*to_q"):
        editor.add_adapter(2, 4, ["to_q", "to_qkv"])
    assert all(one.requires_grad for one in editor.network.parameters())
    with pytest.raises(EditLoopError, match="36x32 pixels: this editor works at multiples of 8"):
        editors["kontext"].latents(sources((32, 40))[:, :, :36])
    with pytest.raises(EditLoopError, match=r"image_pad.*steers the text encoder"):
        editor.encode(["make <|image_pad|> red"], sources((32, 32)))
    with pytest.raises(EditLoopError, match=r"\[INST\] steers the text encoder"):
        editors["flux2-dev"].encode(["[INST] make it red"], sources((32, 32)))
    copied = shutil.copytree(folders["kontext"], tmp_path / "copied")
    index = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    with pytest.raises(EditLoopError, match=r"its pipeline is FluxPipeline; there are editors for FluxKontextPipeline"):
        open_editor(copied)
    (copied / "model_index.json").write_text(json.dumps(index))
    (copied / SETTINGS).write_text(json.dumps({"pipeline": "FluxKontextPipeline", "size": 32}))
    with pytest.raises(EditLoopError, match=r"(?s)editor\.json.*size"):
        open_editor(copied)
    (copied / SETTINGS).write_text(read_editor_preset("flux2-klein").model_dump_json())
    with pytest.raises(EditLoopError, match="settings are for Flux2KleinPipeline, its pipeline is FluxKontextPipeline"):
        open_editor(copied)
    (copied / SETTINGS).unlink()
    assert open_editor(copied).settings == read_editor_preset("flux-kontext")
    scheduler = copied / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps({"_class_name": "EulerDiscreteScheduler"}))
    (copied / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", "EulerDiscreteScheduler"]}))
    with pytest.raises(EditLoopError, match="its scheduler is EulerDiscreteScheduler"):
        open_editor(copied)


LONG = {"words": 'write "sale" in red ' * 100, "signs": "\u628a" * 2000, "pictographs": "\N{FOX FACE}" * 2000}
"""Instructions of the greatest length that an edits file may have; each sign takes three bytes, a pictograph four."""


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
@pytest.mark.parametrize("kind", KINDS)
def test_an_instruction_of_any_length_is_taken_or_refused_before_a_training(editors, folders, kind, text):
    editor, picture = editors[kind], sources((32, 32))
    fault = outline_editor(folders[kind]).instruction_fault(text)
    if fault:
        assert re.fullmatch(r"[\d,]+ tokens; this editor takes [\d,]+; shorten it", fault)
        with pytest.raises(EditLoopError, match=fault):
            editor.encode([text], picture)
    else:
        x = editor.noise(1, (32, 32), torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert editor.velocity(x, torch.full((1,), 0.5), editor.encode([text], picture)).isfinite().all()


def test_all_instructions_that_an_editor_cannot_take_are_named_at_once(folders):
    tasks = [AskedTask(f"row {number}", "make it <|im_end|> red") for number in range(12)]
    with pytest.raises(EditLoopError) as raised:
        check_tasks(outline_editor(folders["klein-base"]), [AskedTask("good", "make it red"), *tasks])
    lines = str(raised.value).splitlines()
    assert lines[0] == "this editor cannot take some of the 13 tasks; 12 faults:"
    assert lines[1].startswith("task row 0: instruction 'make it <|im_end|> red': <|im_end|> steers the text encoder")
    assert (len(lines), lines[-1]) == (12, "and 2 more")


@pytest.mark.parametrize("kind", KINDS)
def test_the_narrowest_source_that_is_read_is_edited(editors, kind):
    size = editors[kind].size_for(SHORTEST_SIDE, SHORTEST_SIDE * MAX_ASPECT_RATIO)
    condition = editors[kind].encode([TASKS[0]], sources(size))
    x = editors[kind].noise(1, size, torch.Generator().manual_seed(0))
    with torch.no_grad():
        velocity = editors[kind].velocity(x, torch.full((1,), 0.5), condition)
    assert editors[kind].decode(velocity, size).shape == (1, *size, 3)


@pytest.mark.parametrize("kind", ["kontext", "qwen-edit-plus"])
def test_real_sizes_are_the_pipelines(opened, kind):
    editor = opened(kind)
    editor.settings = read_editor_preset(editor.preset({}))
    editor.multiple = 16
    for height, width in [(640, 480), (1080, 1920), (3000, 1000), (512, 512)]:
        if kind == "kontext":
            _, *wanted = min((abs(width / height - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
        else:
            wanted = qwen.calculate_dimensions(1024 * 1024, width / height)
        assert editor.size_for(height, width)[::-1] == tuple(wanted)


def test_klein_leaves_a_small_source_its_size_and_a_source_is_resized_to_it(editors):
    editor = editors["klein-base"]
    assert editor.size_for(35, 41) == (32, 40)
    assert editor.size_for(400, 200) == (64, 32)
    picture = working_picture(editor, Image.fromarray(sources((400, 200))[0]))
    assert picture.shape == (64, 32, 3)
    mean = sources((400, 200))[0].mean()
    assert abs(picture.mean() - mean) < 2
    assert working_picture(editor, Image.fromarray(sources((16, 24))[0])).tolist() == sources((16, 24))[0].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_training_pictures_may_be_smaller_than_the_editors_own(editors, kind):
    """A quarter of the pixels, the same shape, whole patches; where sizes are published, the nearest one is scaled."""
    editor = editors[kind]
    assert editor.size_for(640, 1280) == (32, 64)
    assert editor.size_for(640, 1280, area=512) == (16, 32)
    unit = editor.multiple * editor.rounding
    height, width = editor.size_for(900, 1000, area=700)
    assert (height % unit, width % unit) == (0, 0)
    assert abs(height * width - 700) < unit * (height + width)
    published = type(editor)(editor.pipeline, editor.settings.model_copy(update={"sizes": ((64, 64), (32, 128))}))
    assert published.size_for(100, 300) == (32, 128)
    assert published.size_for(100, 300, area=1024) == (16, 64)


def test_a_conditioning_knows_its_length_and_repeats_rows():
    parts = {"prompt": torch.arange(6.0).view(3, 2), "source": torch.arange(3)}
    chosen = Conditioning((32, 32), parts).select(torch.tensor([2, 0, 2, 2]))
    assert len(chosen) == 4
    assert chosen.parts["source"].tolist() == [2, 0, 2, 2]
    assert chosen.parts["prompt"][1].tolist() == [0, 1]
