"""A text model that is a part of a model for images and text has its hook points there."""

from typing import Any

import pytest
import torch
import transformers

import mishformer_lens
from tests.conformance.families.conftest import cases
from tests.conformance.families.contract import SCORES, contract
from tests.models import BATCH, POS, Case, fill_weights, make_config, make_tokens
from tests.recording import assert_same, hooked, recorded

IMAGE_TOKEN = 3


def gemma3_with_images(case: Case) -> Any:
    """A tiny Gemma3 that looks at images of four tokens each."""
    config = transformers.Gemma3Config(
        text_config=make_config(case.kind, case.attention).to_dict(),
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 2,
            "vision_use_head": False,
            "model_type": "siglip_vision_model",
        },
        mm_tokens_per_image=4,
        image_token_index=IMAGE_TOKEN,
        boi_token_index=4,
        eoi_token_index=5,
        attn_implementation=case.attention,
    )
    model = transformers.Gemma3ForConditionalGeneration(config)
    fill_weights(model)
    return model.to(dtype=case.dtype).eval()


def with_images(case: Case) -> dict[str, torch.Tensor]:
    """An image in each text, from the second token on."""
    tokens = make_tokens()
    tokens[tokens == IMAGE_TOKEN] = 6
    tokens[:, 1:5] = IMAGE_TOKEN
    return {
        "input_ids": tokens,
        "token_type_ids": (tokens == IMAGE_TOKEN).long(),
        "pixel_values": torch.linspace(-1, 1, BATCH * 3 * 64).reshape(BATCH, 3, 8, 8).to(case.dtype),
        "attention_mask": torch.ones_like(tokens),
    }


@pytest.mark.parametrize("case", [each for each in cases("eager", "sdpa") if each.values[0].kind == "gemma3"])
def test_gemma3_with_images(case: Case) -> None:
    plain, model = gemma3_with_images(case), gemma3_with_images(case)
    instrumentation = mishformer_lens.instrument(model)
    assert type(instrumentation.model).__name__ == "Gemma3TextModel"
    names = [name for name in contract(case.kind) if case.attention == "eager" or not name.endswith(SCORES)]
    for inputs in (with_images(case), {"input_ids": with_images(case)["input_ids"][:, 5:]}):
        expected = plain(**inputs)
        assert_same(model(**inputs).logits, expected.logits, "idle")
        with recorded(instrumentation.hook_points, names) as values:
            assert_same(model(**inputs).logits, expected.logits, "recorded")
        assert set(values) == set(names)
    (embedded,) = observe(instrumentation, model, with_images(case))
    assert embedded.shape[1] == POS
    with hooked(instrumentation.hook_points, {"hook_embed": lambda activation, hook: activation * 2}):
        assert not torch.equal(model(**with_images(case)).logits, plain(**with_images(case)).logits)


def observe(instrumentation: Any, model: Any, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """What ``hook_embed`` sees: the images among the texts."""
    seen = []
    for changed in (inputs, inputs | {"pixel_values": inputs["pixel_values"] * 0.5}):
        with instrumentation.caching(["hook_embed"]) as cache:
            model(**changed)
        seen.append(cache["hook_embed"])
    moved = (seen[0] != seen[1]).any(-1)
    assert torch.equal(moved, inputs["input_ids"] == IMAGE_TOKEN)
    return seen[:1]
