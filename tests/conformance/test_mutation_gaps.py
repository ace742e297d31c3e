"""What each activation is made of, where a hook in the wrong place goes unnoticed by all the other tests.

Found by `nox -s mutation`: with dropout, in GPT-2's upcast attention, under fused kernels, and with a cache.
"""

from typing import Any

import einops
import pytest
import torch

import mishformer_lens
from tests import capabilities
from tests.conformance import stand_in_kernel
from tests.conformance.scenarios import DROPOUT
from tests.models import (
    BATCH,
    D_HEAD,
    D_MODEL,
    DEVICE,
    KINDS,
    N_LAYERS,
    POS,
    Case,
    left_padding,
    make_model,
    make_tokens,
)
from tests.recording import assert_same, hooked, noise_like, recorded

UPCAST: dict[str, Any] = {"reorder_and_upcast_attn": True}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    **{kind: (kind, {}) for kind in KINDS},
    "gpt2 upcast": ("gpt2", UPCAST),
    "gpt2 upcast, scaled by layer": ("gpt2", {**UPCAST, "scale_attn_by_inverse_layer_idx": True}),
}
ATTENTION = ("hook_attn_scores", "hook_pattern")


def run(model: Any, **arguments: Any) -> Any:
    """One pass. Upcast attention is given a mask: some releases need one there, which their variants declare."""
    tokens = make_tokens()
    if model.config.to_dict().get("reorder_and_upcast_attn"):
        arguments.setdefault("attention_mask", torch.ones_like(tokens))
    return model(tokens, **arguments)


def record(model: Any, **arguments: Any) -> dict[str, torch.Tensor]:
    """Every activation that TransformerLens computes with all flags off, of one pass."""
    instrumentation = mishformer_lens.instrument(model)
    with torch.no_grad(), recorded(instrumentation.hook_points, instrumentation.unflagged_names) as values:
        run(model, **arguments)
    assert all(len(each) == 1 for each in values.values())
    return {name: value for name, (value,) in values.items()}


def block_values(values: dict[str, torch.Tensor], index: int) -> dict[str, torch.Tensor]:
    prefix = f"blocks.{index}."
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_attention_follows_from_queries_keys_and_values(form: str, attention: str, padded: bool) -> None:
    kind, changes = FORMS[form]
    mask = left_padding() if padded else torch.ones(BATCH, POS, dtype=torch.long, device=DEVICE)
    values = record(make_model(Case(kind, attention), **changes), attention_mask=mask)
    allowed = (torch.ones(POS, POS, device=DEVICE).tril()[None] * mask[:, None]).bool()[:, None].expand(-1, 4, -1, -1)
    # A position that is padding attends to nothing that would mean anything.
    seen = mask.bool()[:, None, :, None].expand(-1, 4, -1, POS)
    for index in range(N_LAYERS):
        block = block_values(values, index)
        query = block.get("attn.hook_rot_q", block["attn.hook_q"])
        key = block.get("attn.hook_rot_k", block["attn.hook_k"])
        by_layer = "scaled by layer" in form and (attention == "eager" or capabilities.kernels_scale_by_layer())
        scale = D_HEAD**-0.5 / (index + 1 if by_layer else 1)
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) * scale
        found, pattern = block["attn.hook_attn_scores"], block["attn.hook_pattern"]
        close(found[allowed], scores[allowed])
        assert (found[~allowed & seen] < -1e30).all()
        close(pattern[seen], found.softmax(-1)[seen])
        close(block["attn.hook_z"], torch.einsum("bhqk,bkhd->bqhd", pattern, block["attn.hook_v"]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_what_stands_in_for_a_kernel_is_the_eager_implementation_but_for_rounding(form: str, padded: bool) -> None:
    kind, changes = FORMS[form]
    mask = left_padding() if padded else torch.ones(BATCH, POS, dtype=torch.long, device=DEVICE)
    models = (make_model(Case(kind, attention), **changes) for attention in ("sdpa", "eager"))
    fallback, eager = (with_finite_scores(of_tokens(record(model, attention_mask=mask), mask)) for model in models)
    if "scaled by layer" in form and not capabilities.kernels_scale_by_layer():
        # The kernel does not know of it, so what stands in for it does not either.
        eager = {name: value for name, value in eager.items() if "blocks.0." in name}
    for name, value in eager.items():
        close(fallback[name], value)


def of_tokens(values: dict[str, torch.Tensor], mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """What belongs to tokens. Each implementation lets padding attend to something else."""
    axes = {name: 2 if name.endswith(ATTENTION) else 1 for name in values}
    return {name: value.movedim(axes[name], 1)[mask.bool()] for name, value in values.items()}


def with_finite_scores(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """In some releases GPT-NeoX's eager model masks twice, by the lowest number, which comes to minus infinity."""
    lowest = torch.finfo(torch.float32).min
    return {name: each.clamp(min=lowest) if name.endswith("attn_scores") else each for name, each in values.items()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ATTENTION)
def test_editing_scores_and_pattern_acts_under_every_implementation(form: str, name: str) -> None:
    kind, changes = FORMS[form]

    def edited(attention: str) -> torch.Tensor:
        model = make_model(Case(kind, attention), **changes)
        points = mishformer_lens.instrument(model).hook_points
        edit = {f"blocks.0.attn.{name}": lambda activation, hook: activation + noise_like(activation)}
        with torch.no_grad(), hooked(points, edit), recorded(points, ["blocks.0.attn.hook_z"]) as values:
            run(model)
        (z,) = values["blocks.0.attn.hook_z"]
        return z

    plain = record(make_model(Case(kind), **changes))
    block = block_values(plain, 0)
    pattern = block["attn.hook_pattern"] + noise_like(block["attn.hook_pattern"])
    if name == "hook_attn_scores":
        pattern = (block["attn.hook_attn_scores"] + noise_like(block["attn.hook_attn_scores"])).softmax(-1)
    expected = torch.einsum("bhqk,bkhd->bqhd", pattern, block["attn.hook_v"])
    close(edited("eager"), expected)
    close(edited("sdpa"), expected)


def test_upcast_attention_hands_out_scores_in_float32_and_the_pattern_in_the_dtype_of_the_values() -> None:
    values = record(make_model(Case("gpt2", "eager", torch.bfloat16), **UPCAST))
    assert values["blocks.0.attn.hook_attn_scores"].dtype == torch.float32
    assert values["blocks.0.attn.hook_pattern"].dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_scores_that_a_hook_gives_in_float32_make_a_pattern_in_the_dtype_of_the_values(
    kind: str, attention: str
) -> None:
    model = make_model(Case(kind, attention, torch.bfloat16))
    points = mishformer_lens.instrument(model).hook_points
    scores, pattern = (f"blocks.0.attn.{name}" for name in ATTENTION)
    widen = {scores: lambda activation, hook: activation.float()}
    with torch.no_grad(), hooked(points, widen), recorded(points, [pattern]) as values:
        run(model)
    assert values[pattern][0].dtype == torch.bfloat16


def test_the_pattern_is_what_it_was_before_the_head_mask() -> None:
    for kind in KINDS:
        case = Case(kind)
        if capabilities.takes(case.family, "head_mask", "causal"):
            values = record(make_model(case), head_mask=torch.full((N_LAYERS, 4), 0.5, device=DEVICE))
            for index in range(N_LAYERS):
                rows = block_values(values, index)["attn.hook_pattern"].sum(-1)
                close(rows, torch.ones_like(rows))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash_attention_2"])
def test_a_hook_may_return_a_tensor_of_any_layout(kind: str, attention: str) -> None:
    plain, model = (stand_in_kernel.make(Case(kind, attention)) for _ in range(2))
    points = mishformer_lens.instrument(model).hook_points

    def laid_out_backwards(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        axes = range(activation.dim() - 1, -1, -1)
        return activation.permute(*axes).contiguous().permute(*axes)

    with torch.no_grad():
        expected = run(plain).logits
        for name in points:
            with hooked(points, {name: laid_out_backwards}):
                close(run(model).logits, expected, tolerance=1e-4)


def linear(module: Any, activation: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = module(activation)
    return output


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training with dropout"])
def test_the_block_follows_from_its_parts(kind: str, training: bool) -> None:
    case = Case(kind)
    changes: dict[str, Any] = DROPOUT[case.family] if training else {}
    model = make_model(case, **changes).train(training)
    torch.manual_seed(5)
    values = record(model)
    base = model.transformer if kind == "gpt2" else model.gpt_neox
    embedding = model.get_input_embeddings()(make_tokens())
    close(values["hook_embed"], embedding)
    if kind == "gpt2":
        close(values["hook_pos_embed"], base.wpe.weight[:POS].expand(BATCH, -1, -1))
    stream = embedding if kind != "gpt2" else embedding + values["hook_pos_embed"]
    for index, block in enumerate(base.h if kind == "gpt2" else base.layers):
        found = block_values(values, index)
        if not training or index:
            close(found["hook_resid_pre"], stream)
        close(found["hook_resid_post"], block_output(kind, found))
        norms = (block.ln_1, block.ln_2) if kind == "gpt2" else (block.input_layernorm, block.post_attention_layernorm)
        middle = found.get("hook_resid_mid", found["hook_resid_pre"])
        for norm, name, source in zip(norms, ("ln1", "ln2"), (found["hook_resid_pre"], middle), strict=True):
            normalized = torch.nn.functional.layer_norm(source, (D_MODEL,), norm.weight, norm.bias, norm.eps)
            close(found[f"{name}.hook_normalized"], normalized)
        places = ("c_fc", "c_proj") if kind == "gpt2" else ("dense_h_to_4h", "dense_4h_to_h")
        into, out = (block.mlp.get_submodule(place) for place in places)
        close(found["mlp.hook_pre"], linear(into, found["ln2.hook_normalized"]))
        close(found["mlp.hook_post"], block.mlp.act(found["mlp.hook_pre"]))
        dense = block.attn.c_proj if kind == "gpt2" else block.attention.dense
        attention_out = linear(dense, einops.rearrange(found["attn.hook_z"], "b p h d -> b p (h d)"))
        mlp_out = linear(out, found["mlp.hook_post"])
        for name, expected in (("hook_attn_out", attention_out), ("hook_mlp_out", mlp_out)):
            kept = found[name] != 0
            assert kept.all() != training, f"{name}: dropout is part of what is added to the residual stream"
            close(found[name][kept], expected[kept] / (0.8 if training else 1.0))
        stream = found["hook_resid_post"]


def block_output(kind: str, found: dict[str, torch.Tensor]) -> torch.Tensor:
    attended = found["hook_resid_pre"] + found["hook_attn_out"]
    if "hook_resid_mid" in found:
        close(found["hook_resid_mid"], attended)
    return attended + found["hook_mlp_out"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash_attention_2"])
def test_with_a_cache_only_rotated_keys_are_those_of_all_tokens(kind: str, attention: str) -> None:
    model = stand_in_kernel.make(Case(kind, attention))
    points = mishformer_lens.instrument(model).hook_points
    names = [f"blocks.0.attn.hook_{part}" for part in ("q", "k", "v")]
    rotated = [] if kind == "gpt2" else ["blocks.0.attn.hook_rot_q", "blocks.0.attn.hook_rot_k"]
    tokens = make_tokens()
    with torch.no_grad(), recorded(points, [*names, *rotated]) as values:
        first = model(tokens[:, :4], use_cache=True)
        model(tokens[:, 4:6], **capabilities.past(model, first))
    lengths = {name.rpartition("_")[2] if name in names else name: value[1].shape[1] for name, value in values.items()}
    assert [lengths[part] for part in "qkv"] == [2, 2, 2]
    if rotated:
        assert [lengths[name] for name in rotated] == [2, 6]
        for plain, turned in (("q", "rot_q"), ("k", "rot_k")):
            before, after = values[f"blocks.0.attn.hook_{plain}"][0], values[f"blocks.0.attn.hook_{turned}"][0]
            # Half of each head is rotated, by nothing at the first position.
            close(after[:, 0], before[:, 0])
            close(after[..., D_HEAD // 2 :], before[..., D_HEAD // 2 :])
            assert (after[:, 1:, :, : D_HEAD // 2] != before[:, 1:, :, : D_HEAD // 2]).any(-1).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("part", ["k", "v", "rot_k"])
def test_an_edit_in_place_reaches_the_cache_or_not(kind: str, attention: str, part: str) -> None:
    """Keys and values are cached as edited; rotated keys are edited anew in every pass, and cached as they were."""
    name = f"blocks.1.attn.hook_{part}"
    plain, model = make_model(Case(kind, attention)), make_model(Case(kind, attention))
    points = mishformer_lens.instrument(model).hook_points
    if name not in points:
        assert kind == "gpt2", "only GPT-2 does not rotate"
        return

    def double(activation: torch.Tensor, hook: Any) -> None:
        activation.mul_(2)

    with torch.no_grad():
        expected = capabilities.key_value_cache(plain, plain(make_tokens(), use_cache=True))
        with hooked(points, {name: double}):
            output = capabilities.key_value_cache(model, run(model, use_cache=True))
    if part == "rot_k":
        assert_same(output, expected)
    else:
        with pytest.raises(AssertionError, match="differs"):
            assert_same(output, expected)


@pytest.mark.parametrize("form", FORMS)
def test_under_autocast_the_pattern_is_the_one_that_the_model_hands_out(form: str) -> None:
    kind, changes = FORMS[form]
    model = make_model(Case(kind), **changes)
    instrumentation = mishformer_lens.instrument(model)
    names = [f"blocks.{index}.attn.hook_pattern" for index in range(N_LAYERS)]
    autocast = torch.autocast(DEVICE.type, dtype=torch.bfloat16)
    with torch.no_grad(), autocast, recorded(instrumentation.hook_points, names) as values:
        attentions = run(model, output_attentions=True).attentions
    assert_same([value for name in names for value in values[name]], list(attentions))


@pytest.mark.parametrize("form", FORMS)
def test_the_pattern_is_what_it_was_before_dropout(form: str) -> None:
    kind, changes = FORMS[form]
    case = Case(kind)
    changes = {**changes, **DROPOUT[case.family]}
    values = record(make_model(case, **changes).train())
    for index in range(N_LAYERS):
        block = block_values(values, index)
        close(block["attn.hook_pattern"], block["attn.hook_attn_scores"].softmax(-1))


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_act_under_flash_attention_as_under_eager(kind: str) -> None:
    models = make_model(Case(kind)), stand_in_kernel.make_flash_model(Case(kind))
    points = [mishformer_lens.instrument(model).hook_points for model in models]
    with torch.no_grad():
        idle = models[1](make_tokens()).logits
        for name in points[0]:
            if name.startswith("blocks.0.") and not name.endswith(ATTENTION):
                edit = {name: lambda activation, hook: activation * 0.5 + noise_like(activation)}
                logits = []
                for model, own in zip(models, points, strict=True):
                    with hooked(own, edit):
                        logits.append(run(model).logits)
                close(logits[1], logits[0], tolerance=1e-4)
                assert (logits[1] - idle).abs().max() > 1e-2, name
