"""GPT-2's cross-attention has the hook points of the decoder in TransformerLens's encoder-decoder."""

import dataclasses
import functools
import inspect
from typing import Any

import pytest
import torch
import transformers

import mishformer_lens
from mishformer_lens.errors import EagerFallbackWarning, UnknownHookError
from tests import capabilities
from tests.conformance import contract as without
from tests.conformance.conftest import cases
from tests.conformance.contract import Entry
from tests.models import (
    BATCH,
    D_HEAD,
    D_MODEL,
    D_VOCAB,
    DEVICE,
    N_HEADS,
    N_LAYERS,
    POS,
    Case,
    fill_weights,
    make_config,
    make_model,
    make_tokens,
)
from tests.recording import Values, assert_same, changed, count_tensors, hooked, noise_like, recorded

ENCODED = 5
SIZES = {**without.SIZES, "E": ENCODED}
COPIES = ("hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input")
SCORES = ("hook_attn_scores", "hook_pattern")

# What stands between the middle of a block and the MLP's branch. There, too, ln2 is not the MLP's norm.
CROSSING = {
    "hook_cross_attn_in": Entry("BPD", ("hook_resid_mid",), flagged=True),
    "ln2.hook_scale": Entry("BP1", ("hook_resid_mid", "hook_cross_attn_in")),
    "ln2.hook_normalized": Entry("BPD", ("hook_resid_mid", "hook_cross_attn_in", "ln2.hook_scale")),
    "cross_attn.hook_q": Entry("BPHd", ("ln2.hook_normalized",)),
    "cross_attn.hook_k": Entry("BEHd", ()),
    "cross_attn.hook_v": Entry("BEHd", ()),
    "cross_attn.hook_attn_scores": Entry("BHPE", ("cross_attn.hook_q", "cross_attn.hook_k")),
    "cross_attn.hook_pattern": Entry("BHPE", ("cross_attn.hook_attn_scores",)),
    "cross_attn.hook_z": Entry(
        "BPHd", ("cross_attn.hook_pattern", "cross_attn.hook_v", "cross_attn.hook_q", "cross_attn.hook_k")
    ),
    "cross_attn.hook_result": Entry("BPHD", ("cross_attn.hook_z",), flagged=True),
    "hook_cross_attn_out": Entry("BPD", ("cross_attn.hook_z", "cross_attn.hook_result")),
    "hook_resid_mid_cross": Entry("BPD", ("hook_resid_mid", "hook_cross_attn_out")),
}
BEHIND = {
    "hook_mlp_in": Entry("BPD", ("hook_resid_mid_cross",), flagged=True),
    "ln3.hook_scale": Entry("BP1", ("hook_resid_mid_cross", "hook_mlp_in")),
    "ln3.hook_normalized": Entry("BPD", ("hook_resid_mid_cross", "hook_mlp_in", "ln3.hook_scale")),
    "mlp.hook_pre": Entry("BPM", ("ln3.hook_normalized",)),
    "mlp.hook_post": Entry("BPM", ("mlp.hook_pre",)),
    "hook_mlp_out": Entry("BPD", ("mlp.hook_post",)),
    "hook_resid_post": Entry("BPD", ("hook_resid_mid_cross", "hook_mlp_out")),
}


@functools.cache
def contract() -> dict[str, Entry]:
    """Every hook point, in the order in which they fire: as without cross-attention up to the middle of a block."""
    table = {}
    for name, entry in without.contract("gpt2").items():
        part = name.removeprefix(without.block_of(name))
        if part in BEHIND or part.startswith("ln2."):
            continue
        table[name] = entry
        if part == "hook_resid_mid":
            prefix = without.block_of(name)
            for other, added in {**CROSSING, **BEHIND}.items():
                table[prefix + other] = dataclasses.replace(
                    added, sources=tuple(prefix + source for source in added.sources)
                )
    return table


def skipped() -> set[str]:
    """What does not fire without an encoder's output."""
    return {f"blocks.{layer}.{name}" for layer in range(N_LAYERS) for name in CROSSING}


def shape(name: str) -> tuple[int, ...]:
    return tuple(SIZES[axis] for axis in contract()[name].axes)


def reached_from(edited: str) -> set[str]:
    """The activations that an edit of ``edited`` changes, itself not among them."""
    carrying, reached = {edited}, set()
    for name, entry in contract().items():
        if carrying & set(entry.sources):
            reached.add(name)
            if not (without.is_split_input(edited) and name.startswith(without.block_of(edited) + "ln1.")):
                carrying.add(name)
    return reached


def encoded(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """What an encoder gave for texts of different lengths."""
    mask = torch.ones(BATCH, ENCODED, dtype=torch.long, device=DEVICE)
    mask[1, 3:] = 0
    mask[2, :1] = 0
    states = noise_like(torch.empty(BATCH, ENCODED, D_MODEL)) * 3
    return {"encoder_hidden_states": states.to(DEVICE, dtype), "encoder_attention_mask": mask}


def make(case: Case, **changes: Any) -> Any:
    return make_model(case, add_cross_attention=True, **changes)


def run(model: Any, **arguments: Any) -> Any:
    """One pass with everything that a model gives."""
    tokens = make_tokens()
    dtype = next(model.parameters()).dtype
    return model(tokens, labels=tokens, output_hidden_states=True, **{**encoded(dtype), **arguments})


def observed(case: Case, edited: str = "") -> list[str]:
    """What leaves a layer its kernel, beside what an edit of ``edited`` takes it from anyway."""
    eager = edited.rpartition(".")[0] if edited.endswith(SCORES) else ""
    return [
        name
        for name in contract()
        if case.attention == "eager" or not name.endswith(SCORES) or name.rpartition(".")[0] == eager
    ]


def of_one_block(case: Case) -> list[str]:
    """The hook points outside of the blocks and in one of them, where a pass for each of them all takes too long."""
    layer = 0 if case.attention == "eager" else N_LAYERS - 1
    return [name for name in contract() if without.block_of(name) in ("", f"blocks.{layer}.")]


def gpt2(*attention: str, **others: Any) -> list[Any]:
    return cases(*attention, kinds=("gpt2",), **others)


every_case = pytest.mark.parametrize("case", gpt2("eager", "sdpa"))
float32_case = pytest.mark.parametrize("case", gpt2("eager", "sdpa", dtypes=(torch.float32,)))


@every_case
def test_idle_and_observed_outputs_are_huggingface_s(case: Case) -> None:
    plain, model = make(case), make(case)
    instrumentation = mishformer_lens.instrument(model)
    for arguments in (
        {},
        {"encoder_attention_mask": None},
        {"output_attentions": True},
        {"attention_mask": torch.arange(POS, device=DEVICE)[None] >= torch.arange(BATCH, device=DEVICE)[:, None]},
        {"encoder_hidden_states": None, "encoder_attention_mask": None},
    ):
        expected = run(plain, **arguments)
        assert count_tensors(expected) > N_LAYERS
        assert_same(run(model, **arguments), expected, "idle")
        with recorded(instrumentation.hook_points, observed(case)):
            assert_same(run(model, **arguments), expected, "hooked")
        with instrumentation.caching(observed(case)):
            assert_same(run(model, **arguments), expected, "observed")
    assert_same(run(model), run(plain), "idle again")


@float32_case
def test_gradients_are_huggingface_s(case: Case) -> None:
    plain, model = make(case), make(case)
    points = mishformer_lens.instrument(model).hook_points
    names = [name for name in observed(case) if not contract()[name].flagged]
    run(plain).loss.backward()
    with recorded(points, names):
        run(model).loss.backward()
    for (name, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert one.grad is not None
        assert torch.equal(one.grad, other.grad), name
    with recorded(points, names, "bwd") as gradients:
        run(model).loss.backward()
    assert {name: tuple(value.shape) for name, (value,) in gradients.items()} == {name: shape(name) for name in names}
    assert all(bool(value.any()) for (value,) in gradients.values())


@every_case
def test_every_hook_point_fires_once_in_order_with_its_shape(case: Case) -> None:
    model = make(case)
    instrumentation = mishformer_lens.instrument(model)
    assert list(instrumentation.hook_points) == list(contract())
    unflagged = [name for name, entry in contract().items() if not entry.flagged]
    assert instrumentation.unflagged_names == unflagged
    fired: list[tuple[str, tuple[int, ...]]] = []

    def note(activation: torch.Tensor, hook: Any) -> None:
        fired.append((hook.name, tuple(activation.shape)))

    with hooked(instrumentation.hook_points, dict.fromkeys(unflagged, note)):
        run(model)
    assert fired == [(name, shape(name)) for name in unflagged]
    for name in set(contract()) - set(unflagged):
        with recorded(instrumentation.hook_points, [name]) as values:
            run(model)
        assert [tuple(value.shape) for value in values[name]] == [shape(name)]


@float32_case
def test_what_belongs_to_cross_attention_does_not_fire_without_an_encoder_s_output(case: Case) -> None:
    model = make(case)
    points = mishformer_lens.instrument(model).hook_points
    nothing = {"encoder_hidden_states": None, "encoder_attention_mask": None}
    with recorded(points, contract()) as values:
        run(model, **nothing)
    assert set(values) == set(contract()) - skipped()
    with hooked(points, {name: lambda activation, hook: activation + 1 for name in skipped()}):
        assert_same(run(model, **nothing), run(make(case), **nothing))
    # The middle is then what the MLP's branch reads.
    with torch.no_grad(), recorded(points, ["blocks.0.hook_resid_mid", "blocks.0.ln3.hook_normalized"]) as values:
        run(model, **nothing)
    (middle,), (normalized,) = values.values()
    assert torch.equal(model.transformer.h[0].ln_2(middle), normalized)


@every_case
def test_replacing_an_activation_by_itself_changes_nothing(case: Case) -> None:
    model = make(case)
    points = mishformer_lens.instrument(model).hook_points
    fused = run(model)
    for name in of_one_block(case):
        expected = fused
        if name.endswith(SCORES) and case.attention != "eager":
            with recorded(points, [name]):
                expected = run(model)
        with hooked(points, {name: lambda activation, hook: activation.clone()}):
            assert_same(run(model), expected, name)


@float32_case
def test_an_edit_reaches_what_the_contract_says_and_nothing_else(case: Case) -> None:
    model = make(case)
    points = mishformer_lens.instrument(model).hook_points

    def values(edited: str, edit: Any) -> Values:
        names = [name for name in observed(case, edited) if not contract()[name].flagged or name == edited]
        with torch.no_grad(), recorded(points, names) as found, hooked(points, {edited: edit}):
            found["logits"].append(run(model).logits)
        return found

    def in_place(activation: torch.Tensor, hook: Any) -> None:
        activation.add_(noise_like(activation))

    for name in of_one_block(case):
        before = values(name, lambda activation, hook: None)
        after = values(name, lambda activation, hook: activation + noise_like(activation))
        assert changed(before, after) == (reached_from(name) | {"logits"}) & before.keys(), name
        assert not changed(after, values(name, in_place)), name


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_values(attention: str) -> None:
    plain, model = make(Case("gpt2", attention)), make(Case("gpt2", attention))
    seen: dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor]] = {}
    of_cross_attention = [f"crossattention.{name}" for name in ("q_attn", "c_attn", "c_proj")]
    for layer, block in enumerate(plain.transformer.h):
        for path in ("ln_1", "ln_cross_attn", "ln_2", *of_cross_attention):

            def note(module: Any, arguments: Any, output: Any, key: tuple[int, str] = (layer, path)) -> None:
                seen[key] = arguments[0].clone(), output.clone()

            block.get_submodule(path).register_forward_hook(note)
    arguments = {"output_attentions": True} if attention == "eager" else {}
    output = run(plain, **arguments)
    # With hooks on these, the norm runs for each head.
    names = [name for name in observed(Case("gpt2", attention)) if not name.endswith(COPIES)]
    with recorded(mishformer_lens.instrument(model).hook_points, names) as values:
        run(model, **arguments)
    for layer in range(N_LAYERS):
        found = {name.removeprefix(f"blocks.{layer}."): value for name, (value,) in values.items()}
        check_block(found, {path: both for (index, path), both in seen.items() if index == layer})
        if attention == "eager":
            assert torch.equal(found["cross_attn.hook_pattern"], output.cross_attentions[layer])
            check_scores(found)


def check_block(found: dict[str, torch.Tensor], seen: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Hold the activations of one block to what was seen of its modules."""
    for norm, stream, module in (
        ("ln1", "hook_resid_pre", "ln_1"),
        ("ln2", "hook_resid_mid", "ln_cross_attn"),
        ("ln3", "hook_resid_mid_cross", "ln_2"),
    ):
        taken, given = seen[module]
        assert torch.equal(found[stream], taken), stream
        assert torch.equal(found[f"{norm}.hook_normalized"], given), norm
        torch.testing.assert_close(found[f"{norm}.hook_scale"], (taken.var(-1, False, keepdim=True) + 1e-5).sqrt())
    assert torch.equal(found["hook_cross_attn_in"], found["hook_resid_mid"])
    assert torch.equal(found["hook_mlp_in"], found["hook_resid_mid_cross"])
    assert torch.equal(found["cross_attn.hook_q"].flatten(-2), seen["crossattention.q_attn"][1])
    keys_and_values = [found[f"cross_attn.hook_{letter}"].flatten(-2) for letter in "kv"]
    assert torch.equal(torch.cat(keys_and_values, -1), seen["crossattention.c_attn"][1])
    assert torch.equal(found["cross_attn.hook_z"].flatten(-2), seen["crossattention.c_proj"][0])
    assert torch.equal(found["hook_cross_attn_out"], seen["crossattention.c_proj"][1])
    assert torch.equal(found["hook_resid_pre"] + found["hook_attn_out"], found["hook_resid_mid"])
    assert torch.equal(found["hook_resid_mid"] + found["hook_cross_attn_out"], found["hook_resid_mid_cross"])
    assert torch.equal(found["hook_resid_mid_cross"] + found["hook_mlp_out"], found["hook_resid_post"])


@functools.cache
def heeds_the_mask() -> bool:
    """Whether a plain model of the installed release looks at what it is told of the encoder's padding."""
    plain = make(Case("gpt2"))
    return not torch.equal(run(plain).logits, run(plain, encoder_attention_mask=None).logits)


def check_scores(found: dict[str, torch.Tensor]) -> None:
    """Scores are scaled products where the encoder's mask lets through, whatever comes first in the text."""
    query, key, value = (found[f"cross_attn.hook_{letter}"] for letter in "qkv")
    variant = mishformer_lens.variants["gpt2"]
    assert variant is not None
    mask = encoded()["encoder_attention_mask"].bool()
    if not heeds_the_mask():
        assert "encoder_attention_mask" in variant.unsupported
        mask = torch.ones_like(mask)
    visible = mask[:, None, None].expand(-1, N_HEADS, POS, -1)
    scores, pattern = found["cross_attn.hook_attn_scores"], found["cross_attn.hook_pattern"]
    products = torch.einsum("bqhd,bkhd->bhqk", query, key) / D_HEAD**0.5
    torch.testing.assert_close(scores[visible], products[visible])
    assert bool((scores[~visible] < -1e4).all())
    assert bool((pattern[~visible] == 0).all())
    assert bool((pattern[visible] > 0).all())
    torch.testing.assert_close(found["cross_attn.hook_z"], torch.einsum("bhqk,bkhd->bqhd", pattern, value))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_results_of_heads_add_up(attention: str) -> None:
    model = make(Case("gpt2", attention))
    points = mishformer_lens.instrument(model).hook_points
    names = ["blocks.1.cross_attn.hook_result", "blocks.1.hook_cross_attn_out"]
    with torch.no_grad(), recorded(points, names) as values:
        run(model)
    (results,), (added,) = values.values()
    bias = model.transformer.h[1].crossattention.c_proj.bias
    torch.testing.assert_close(results.sum(2) + bias, added, rtol=1e-5, atol=2e-6)


def test_looking_at_scores_leaves_the_kernel_of_that_attention_alone() -> None:
    model = make(Case("gpt2", "sdpa"))
    instrumentation = mishformer_lens.instrument(model)
    expected = run(model).logits
    names = [f"blocks.0.cross_attn.{hook}" for hook in SCORES]
    with instrumentation.caching(names) as cache, pytest.warns(EagerFallbackWarning) as caught:
        logits = run(model).logits
    assert len(caught) == 1
    assert [tuple(value.shape) for value in cache.values()] == [(BATCH, N_HEADS, POS, ENCODED)] * 2
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@float32_case
@torch.no_grad()
def test_keys_and_values_of_the_encoder_are_seen_in_each_pass_and_edited_in_that_pass(case: Case) -> None:
    """Some releases compute them in each pass; others have them in the key-value cache from the first pass on."""
    plain, model = make(case), make(case)
    points = mishformer_lens.instrument(model).hook_points
    tokens = make_tokens()
    names = [f"blocks.1.cross_attn.hook_{letter}" for letter in "kv"]
    edits = dict.fromkeys(names, lambda activation, hook: activation * 0.5 + noise_like(activation))

    def begin(one: Any) -> Any:
        return one(tokens[:, :4], use_cache=True, **encoded())

    def go_on(one: Any, first: Any) -> torch.Tensor:
        logits: torch.Tensor = one(tokens[:, 4:], **capabilities.past(one, first), use_cache=True, **encoded()).logits
        return logits

    expected = go_on(plain, begin(plain))
    with recorded(points, names) as values:
        assert torch.equal(go_on(model, begin(model)), expected)
    for first, second in values.values():
        assert first.shape == (BATCH, ENCODED, N_HEADS, D_HEAD)
        assert torch.equal(first, second)
    # What the last block's cross-attention gives is in no cache.
    with hooked(points, edits):
        first = begin(model)
    assert not torch.equal(first.logits, begin(plain).logits)
    assert torch.equal(go_on(model, first), expected)
    first = begin(model)
    with hooked(points, edits):
        edited = go_on(model, first)
        at_once = model(tokens, **encoded()).logits[:, 4:]
    assert not torch.allclose(edited, expected)
    torch.testing.assert_close(edited, at_once, rtol=1e-4, atol=1e-5)


def encoder_decoder(attention: str) -> Any:
    """A tiny BERT that reads, and a GPT-2 that writes."""
    reader = transformers.BertConfig(
        vocab_size=D_VOCAB,
        hidden_size=D_MODEL,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )
    writer = make_config("gpt2", attention, add_cross_attention=True, is_decoder=True)
    model = transformers.EncoderDecoderModel(
        encoder=transformers.BertModel(reader), decoder=transformers.GPT2LMHeadModel(writer)
    )
    torch.manual_seed(0)
    for parameter in model.encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    fill_weights(model.decoder)
    return model.to(DEVICE).eval()


@pytest.mark.filterwarnings("ignore:.encoder_attention_mask. is deprecated:FutureWarning")
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_inside_an_encoder_decoder_model(attention: str) -> None:
    declared = inspect.get_annotations(transformers.EncoderDecoderConfig).get("is_encoder_decoder")
    if "int" in str(declared):
        pytest.skip("this release can make no EncoderDecoderModel: it wants an integer that says whether it is one")
    plain, model = encoder_decoder(attention), encoder_decoder(attention)
    instrumentation = mishformer_lens.instrument(model)
    assert list(instrumentation.hook_points) == list(contract())
    case = Case("gpt2", attention)
    inputs = {"input_ids": make_tokens(pos=ENCODED), "attention_mask": encoded()["encoder_attention_mask"]}

    def both(one: Any, use_cache: bool) -> Any:
        with torch.no_grad():
            written = one.generate(
                **inputs,
                max_new_tokens=6,
                do_sample=False,
                use_cache=use_cache,
                decoder_start_token_id=1,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_scores=True,
            )
            read = one(**inputs, decoder_input_ids=make_tokens())
        return {"written": written.sequences, "scores": written.scores, "logits": read.logits}

    cached, whole = both(plain, True), both(plain, False)
    for use_cache, expected in ((True, cached), (False, whole)):
        assert_same(both(model, use_cache), expected, "idle")
        names = [name for name in observed(case) if not contract()[name].flagged]
        with recorded(instrumentation.hook_points, names) as values:
            assert_same(both(model, use_cache), expected, "hooked")
        assert set(values) == set(names)
    # The same edit, whether a cache holds what is edited or not.
    edits = {
        f"blocks.{layer}.cross_attn.hook_{letter}": lambda activation, hook: activation * -2
        for layer in range(N_LAYERS)
        for letter in "kv"
    }
    with hooked(instrumentation.hook_points, edits):
        one, other = both(model, True), both(model, False)
    assert torch.equal(one["written"], other["written"])
    assert not torch.equal(one["logits"], cached["logits"])
    for with_cache, without_cache in zip(one["scores"], other["scores"], strict=True):
        torch.testing.assert_close(with_cache, without_cache, rtol=1e-4, atol=1e-4)


def test_a_model_without_cross_attention_has_none_of_these() -> None:
    instrumentation = mishformer_lens.instrument(make_model(Case("gpt2")))
    assert list(instrumentation.hook_points) == list(without.contract("gpt2"))
    for name in ("blocks.0.cross_attn.hook_q", "blocks.0.hook_resid_mid_cross", "blocks.0.ln3.hook_scale"):
        assert name not in instrumentation.hook_points
        with pytest.raises(UnknownHookError, match="has no hook point"):
            instrumentation[name]
