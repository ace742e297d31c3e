"""Models as people really have them: dispatched, offloaded, with adapters, replicated, with heads, pickled."""

import copy
from pathlib import Path
from typing import Any

import accelerate
import peft
import pytest
import torch
from torch import nn

import mishformer_lens
from tests.conformance.contract import contract, unflagged
from tests.models import DEVICE, Case, make_model, make_tokens
from tests.recording import assert_same, hooked, recorded

# peft still asks transformers by names that are being renamed.
PEFT = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")

EDITS = {
    "blocks.0.hook_resid_pre": lambda activation, hook: activation * 0.5,
    "blocks.1.attn.hook_pattern": lambda activation, hook: activation * 0.5,
    "blocks.1.hook_q_input": lambda activation, hook: activation * 2,
    "blocks.0.attn.hook_result": lambda activation, hook: activation * 2,
    "ln_final.hook_scale": lambda activation, hook: activation * 2,
}


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(make_tokens()).logits
    return result


def edited_logits(model: Any) -> torch.Tensor:
    with hooked(mishformer_lens.instrument(model).hook_points, EDITS):
        return logits(model)


def expected_of(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a plain model, and with the edits."""
    model = make_model(Case(kind))
    return logits(model), edited_logits(model)


def parts(kind: str, devices: tuple[Any, Any]) -> dict[str, Any]:
    """A device map that puts the second block and what follows elsewhere."""
    first, second = devices
    if Case(kind).family == "gpt2":
        return {
            "transformer.wte": first,
            "transformer.wpe": first,
            "transformer.drop": first,
            "transformer.h.0": first,
            "transformer.h.1": second,
            "transformer.ln_f": first,
            "lm_head": first,
        }
    model = make_model(Case(kind))
    unembedding = next(name for name, _ in model.named_children() if name != "gpt_neox")
    # Some releases have the rotary embedding in the model, some in each attention.
    parts = [f"gpt_neox.{name}" for name, _ in model.gpt_neox.named_children() if name != "layers"]
    return {**dict.fromkeys([*parts, unembedding], first), "gpt_neox.layers.0": first, "gpt_neox.layers.1": second}


@pytest.mark.parametrize("hook_first", [False, True], ids=["hooked after", "hooked before"])
@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_offloaded_models(kind: str, place: str, hook_first: bool, tmp_path: Path) -> None:
    plain, edited = expected_of(kind)
    model = make_model(Case(kind))
    if hook_first:
        mishformer_lens.instrument(model)
    if place == "disk":
        model = accelerate.disk_offload(model, str(tmp_path), execution_device=DEVICE)
    else:
        model = accelerate.cpu_offload(model, execution_device=DEVICE)
    instrumentation = mishformer_lens.instrument(model)
    assert_same(logits(model), plain)
    assert_same(edited_logits(model), edited)
    assert_same(logits(model), plain)
    if not hook_first:
        instrumentation.remove()
        assert_same(logits(model), plain)


@pytest.mark.parametrize("hook_first", [False, True], ids=["hooked after", "hooked before"])
def test_dispatched_models(kind: str, hook_first: bool, tmp_path: Path) -> None:
    plain, edited = expected_of(kind)
    model = make_model(Case(kind))
    if hook_first:
        mishformer_lens.instrument(model)
    model = accelerate.dispatch_model(
        model, parts(kind, (str(DEVICE), "disk")), main_device=str(DEVICE), offload_dir=str(tmp_path)
    )
    mishformer_lens.instrument(model)
    assert_same(logits(model), plain)
    assert_same(edited_logits(model), edited)


def lora(model: Any, family: str) -> Any:
    """A model with adapters on the projections, whose weights are not zero."""
    targets = {"gpt2": ["c_attn", "c_proj"], "gpt_neox": ["query_key_value", "dense"]}[family]
    config = peft.LoraConfig(r=4, target_modules=targets, lora_alpha=8, fan_in_fan_out=family == "gpt2")
    adapted = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                steps = torch.arange(parameter.numel(), dtype=torch.float64)
                parameter.copy_(torch.sin(steps).reshape(parameter.shape) * 0.3)
    return adapted


@PEFT
@pytest.mark.parametrize("hook_first", [False, True], ids=["hooked after", "hooked before"])
def test_lora_adapters(kind: str, hook_first: bool) -> None:
    family = Case(kind).family
    plain = logits(lora(make_model(Case(kind)), family))
    assert not torch.equal(plain, logits(make_model(Case(kind))))
    model = make_model(Case(kind))
    if hook_first:
        mishformer_lens.instrument(model)
    adapted = lora(model, family)
    instrumentation = mishformer_lens.instrument(adapted)
    points = instrumentation.hook_points
    assert_same(logits(adapted), plain)
    with recorded(points, unflagged(kind)) as values:
        assert_same(logits(adapted), plain)
    assert all(len(value) == 1 for value in values.values())
    # The adapters count in what the hooks that compute on demand see.
    with recorded(points, ["blocks.0.attn.hook_result", "blocks.0.hook_attn_out", "blocks.0.attn.hook_q"]) as values:
        logits(adapted)
    results, attn_out = values["blocks.0.attn.hook_result"][0], values["blocks.0.hook_attn_out"][0]
    block = adapted.base_model.model.base_model.get_submodule(
        "h.0.attn.c_proj" if family == "gpt2" else "layers.0.attention.dense"
    )
    torch.testing.assert_close(results.sum(-2) + block.bias, attn_out, rtol=1e-4, atol=1e-5)
    with hooked(points, {"blocks.0.hook_q_input": lambda activation, hook: activation.clone()}):
        torch.testing.assert_close(logits(adapted), plain, rtol=1e-4, atol=1e-5)


@PEFT
def test_merged_adapters(kind: str) -> None:
    model = make_model(Case(kind))
    instrumentation = mishformer_lens.instrument(model)
    merged = lora(model, Case(kind).family).merge_and_unload()
    assert mishformer_lens.instrument(merged) is instrumentation
    plain = lora(make_model(Case(kind)), Case(kind).family).merge_and_unload()
    assert_same(logits(merged), logits(plain))
    with recorded(instrumentation.hook_points, list(contract(kind))) as values:
        logits(merged)
    assert set(values) == set(contract(kind))


def replicate(module: nn.Module) -> Any:
    """What DataParallel makes for every device: shallow copies of all modules that share weights."""
    copies = {each: each._replicate_for_data_parallel() for each in module.modules()}
    for each, duplicate in copies.items():
        for name, child in each.named_children():
            setattr(duplicate, name, copies[child])
        for name, parameter in each._parameters.items():
            # Not parameters but tensors, as in a replica.
            if parameter is None:
                duplicate._parameters[name] = None
            else:
                setattr(duplicate, name, parameter.detach())
        for name, buffer in each.named_buffers(recurse=False):
            duplicate._buffers[name] = buffer
    return copies[module]


def test_replicas_compute_and_hook_as_their_original(kind: str) -> None:
    plain, edited = expected_of(kind)
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    assert_same(logits(replicate(model)), plain)
    # torch makes replicas for each pass anew. They share the hook points: what is attached to the model acts in all.
    with hooked(points, EDITS):
        assert_same(logits(replicate(model)), edited)
    assert_same(logits(replicate(model)), plain)


def test_a_deepcopy_of_a_dispatched_model(kind: str, tmp_path: Path) -> None:
    plain, edited = expected_of(kind)
    model = make_model(Case(kind))
    mishformer_lens.instrument(model)
    duplicate = copy.deepcopy(accelerate.dispatch_model(model, {"": str(DEVICE)}, force_hooks=True))
    assert_same(logits(duplicate), plain)
    assert_same(edited_logits(duplicate), edited)
    assert_same(logits(model), plain)


def test_moving_and_casting_a_hooked_model(kind: str) -> None:
    expected = logits(make_model(Case(kind, dtype=torch.bfloat16)))
    model = make_model(Case(kind))
    points = mishformer_lens.instrument(model).hook_points
    model = model.to(torch.bfloat16)
    assert_same(logits(model), expected)
    with recorded(points, ["blocks.0.attn.hook_z"]) as values:
        logits(model)
    assert values["blocks.0.attn.hook_z"][0].dtype == torch.bfloat16


# torch's own quantization is announced to move to another package.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_quantized_linear_layers(kind: str) -> None:
    if Case(kind).family == "gpt2":
        # GPT-2's projections are transformers' Conv1D, which torch does not quantize.
        assert not any(isinstance(module, nn.Linear) for module in make_model(Case(kind)).base_model.modules())
        return
    quantized = [torch.ao.quantization.quantize_dynamic(make_model(Case(kind)).cpu(), {nn.Linear}) for _ in range(2)]
    tokens = make_tokens().cpu()
    points = mishformer_lens.instrument(quantized[1]).hook_points
    with torch.no_grad():
        expected = quantized[0](tokens).logits
        assert_same(quantized[1](tokens).logits, expected)
        with recorded(points, unflagged(kind)) as values:
            assert_same(quantized[1](tokens).logits, expected)
    assert set(values) == set(unflagged(kind))
