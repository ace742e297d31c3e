"""Activations are what HuggingFace's own modules take and give, and what an independent computation gives."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

import mishformer_lens
from mishformer_lens.patchers import FAMILIES
from tests import alibi
from tests.conformance.families.contract import contract
from tests.kinds import Kind, kinds
from tests.models import BATCH, N_HEADS, N_LAYERS, Case, make_model, make_tokens
from tests.recording import assert_close

LONG = 12
OF_MLPS = ("gate", "up", "down", "gate_up", "in")
CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def blocks_of(model: Any, kind: Kind) -> Any:
    """HuggingFace's list of a model's blocks."""
    return base_of(model, kind).get_submodule(FAMILIES[kind.family].components["blocks"])


def base_of(model: Any, kind: Kind) -> Any:
    """HuggingFace's base model in a model."""
    (base,) = (each for each in model.modules() if type(each).__name__ == kind.classes["base"])
    return base


def roles(kind: Kind, layer: int) -> dict[str, str]:
    """HuggingFace's names of the modules of a layer that are watched, by what they do."""
    mixture = kind.is_mixture(layer)
    return {role: path for role, path in kind.modules.items() if not (mixture and role in OF_MLPS)}


def watch(blocks: Any, kind: Kind, seen: dict[str, tuple[torch.Tensor, ...]]) -> None:
    """Let torch's own hooks note what goes into the modules of a plain model, and what comes out."""
    for layer, block in enumerate(blocks):
        for role, path in roles(kind, layer).items():

            def note(
                module: Any, arguments: Any, named: Mapping[str, Any], output: Any, key: str = f"{layer}.{role}"
            ) -> None:
                value = arguments[0] if arguments else next(iter(named.values()))
                # Some get the rows of all texts one after another.
                seen[key] = tuple(
                    each.clone().view(BATCH, -1, each.shape[-1]) if each.dim() == 2 else each.clone()
                    for each in (value, output)
                )

            block.get_submodule(path).register_forward_hook(note, with_kwargs=True)


@pytest.mark.filterwarnings("ignore::mishformer_lens.errors.EagerFallbackWarning")
@torch.no_grad()
def test_values(kind: str) -> None:
    case, form = Case(kind), kinds()[kind]
    plain, model = make_model(case), make_model(case)
    seen: dict[str, tuple[torch.Tensor, ...]] = {}
    watch(blocks_of(plain, form), form, seen)
    tokens = make_tokens(pos=LONG)
    output = plain(tokens, output_hidden_states=True, output_attentions=True)
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching(list(contract(kind))) as cache:
        model(tokens)
    embedded = plain.get_input_embeddings()(tokens)
    if form.embedding_norm:
        embedded = base_of(plain, form).get_submodule(form.embedding_norm)(embedded)
        assert torch.equal(cache["embed.ln.hook_normalized"], embedded)
    if form.embed_width is not None:
        assert embedded.shape[-1] == form.embed_width
        embedded = embedded @ plain.model.decoder.project_in.weight.T
    scale = form.scaled_embedding if embedded.shape == output.hidden_states[0].shape else 1.0
    if torch.allclose(embedded, output.hidden_states[0]):
        scale = 1.0  # its embedding multiplies by itself
    assert_close(cache["hook_embed"], embedded * scale, "hook_embed", **CLOSE)
    if form.learned_positions:
        assert torch.equal(cache["hook_embed"] + cache["hook_pos_embed"], output.hidden_states[0])
    for layer in range(N_LAYERS):
        of_layer: dict[str, Any] = {role: seen[f"{layer}.{role}"] for role in roles(form, layer)}
        if form.sinks:
            of_layer["sinks"] = blocks_of(plain, form)[layer].self_attn.sinks
        check_block(form, cache, layer, of_layer, output)
    check_norms(form, cache)


def check_norms(form: Kind, cache: Mapping[str, torch.Tensor]) -> None:
    """What stands before a gain has a mean square of one, but for an epsilon; times the scale, it is the input."""
    for name in cache:
        if name.endswith("hook_normalized") and form.norm == "rms":
            mean_square = cache[name].pow(2).mean(-1)
            assert_close(mean_square, torch.ones_like(mean_square), name, rtol=1e-3, atol=1e-3)
    last = cache[f"blocks.{N_LAYERS - 1}.hook_resid_post"]
    if form.norm == "rms" and form.final_norm:
        whole = cache["ln_final.hook_normalized"] * cache["ln_final.hook_scale"]
        assert_close(whole, last, "ln_final", **CLOSE)


def check_block(form: Kind, cache: Mapping[str, torch.Tensor], layer: int, seen: Any, output: Any) -> None:
    """Hold the activations of one block to what was seen of its modules."""

    def at(name: str) -> torch.Tensor:
        return cache[f"blocks.{layer}.{name}"]

    assert torch.equal(at("hook_resid_pre"), output.hidden_states[layer])
    for letter in "qkv":
        if letter in seen:
            assert torch.equal(at(f"attn.hook_{letter}").flatten(-2), seen[letter][1]), letter
    for norm in sorted(seen.keys() & {"ln1", "ln2", "ln1_post", "ln2_post"}):
        check_norm(form, at(f"{norm}.hook_scale"), at(f"{norm}.hook_normalized"), *seen[norm])
    assert torch.equal(at("attn.hook_z").flatten(-2), seen["out"][0])
    assert torch.equal(at("attn.hook_pattern"), output.attentions[layer])
    check_pattern(at("attn.hook_attn_scores"), at("attn.hook_pattern"), seen.get("sinks"))
    check_scores(form, at, layer)
    if form.rotary and not form.query_key_norm:
        rotated = form.d_head if form.rotated is None else form.rotated[layer]
        for letter in "qk":
            rest = at(f"attn.hook_{letter}")[..., rotated:]
            assert torch.equal(at(f"attn.hook_rot_{letter}")[..., rotated:], rest), letter
    if "qkv" in seen:
        queries, keys, values = at("attn.hook_q"), at("attn.hook_k"), at("attn.hook_v")
        sharing = queries.shape[2] // keys.shape[2]
        together = {
            "part": torch.cat([queries, keys, values], 2),
            "group": torch.cat([queries.unflatten(2, (-1, sharing)), keys.unsqueeze(3), values.unsqueeze(3)], 3),
        }
        assert torch.equal(together[form.fused].flatten(2), seen["qkv"][1])
    if "gate_up" in seen:
        assert torch.equal(torch.cat([at("mlp.hook_pre"), at("mlp.hook_pre_linear")], -1), seen["gate_up"][1])
    if "in" in seen:
        assert torch.equal(at("mlp.hook_pre"), seen["in"][1])
    if form.norm == "layer":
        for name in ("ln1", "ln2"):
            given, normalized = seen["ln1" if form.shared_norm else name]
            assert torch.equal(at(f"{name}.hook_normalized"), normalized), name
            scale = given.var(-1, correction=0, keepdim=True).add(1e-5).sqrt()
            assert_close(at(f"{name}.hook_scale"), scale, name, **CLOSE)
    for post, out in (("ln1_post", "hook_attn_out"), ("ln2_post", "hook_mlp_out")):
        if post in seen:
            assert torch.equal(at(out), seen[post][1]), out
    if "gate" in seen:
        assert torch.equal(at("mlp.hook_pre"), seen["gate"][1])
        assert torch.equal(at("mlp.hook_pre_linear"), seen["up"][1])
    if not form.is_mixture(layer):
        assert torch.equal(at("mlp.hook_post"), seen["down"][0])
    if form.norms == "stream":
        for norm, added, stream in (
            ("ln1", at("hook_resid_pre") + at("hook_attn_out"), "hook_resid_mid"),
            ("ln2", at("hook_resid_mid") + at("hook_mlp_out"), "hook_resid_post"),
        ):
            assert torch.equal(added, seen[norm][0]), norm
            assert torch.equal(at(stream), seen[norm][1]), stream
        assert torch.equal(at("hook_mlp_in"), at("hook_resid_mid"))
        return
    goes_on = at("ln1.hook_normalized" if form.stream_from_norms else "hook_resid_pre")
    parts = goes_on + at("hook_attn_out")
    if not form.parallel:
        assert_close(at("hook_resid_mid"), parts, "hook_resid_mid", **CLOSE)
    if form.stream_from_norms:
        parts = at("ln2.hook_normalized")
    assert_close(at("hook_resid_post"), parts + at("hook_mlp_out"), "hook_resid_post", **CLOSE)


def check_norm(
    form: Kind, scale: torch.Tensor, normalized: torch.Tensor, taken: torch.Tensor, given: torch.Tensor
) -> None:
    """A norm divides what it takes by its scale; what it gives is seen of a layer norm."""
    if form.norm == "layer":
        assert torch.equal(normalized, given)
        assert_close(scale, taken.std(-1, correction=0, keepdim=True), "hook_scale", rtol=1e-3, atol=1e-4)
    else:
        assert_close(normalized * scale, taken, "hook_normalized", **CLOSE)


def check_pattern(scores: torch.Tensor, pattern: torch.Tensor, sinks: torch.Tensor | None) -> None:
    """A pattern is the softmax of its scores; a head's sink takes part as one more key, which is not shown."""
    if sinks is None:
        own = scores.softmax(-1)
    else:
        joining = sinks.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        own = torch.cat([scores, joining], -1).softmax(-1)[..., :-1]
        assert float(pattern.sum(-1).min()) < 0.99
    assert_close(own, pattern, "pattern", **CLOSE)


def check_scores(form: Kind, at: Any, layer: int) -> None:
    """Scores are products of what was rotated, capped, where the mask lets through; and the mask is the layer's own."""
    query, key = (at(f"attn.hook_rot_{letter}" if form.rotary else f"attn.hook_{letter}") for letter in "qk")
    if form.clipped is not None:
        query, key = (each.clamp(-form.clipped, form.clipped) for each in (query, key))
    key = key.repeat_interleave(N_HEADS // key.shape[2], 2)
    products = torch.einsum("bqhd,bkhd->bhqk", query, key) * form.scaling
    if form.alibi:
        products = products + form.alibi_scale * alibi.biases(N_HEADS, LONG, form.alibi)
    if form.softcap is not None:
        products = form.softcap * torch.tanh(products / form.softcap)
    distance = torch.arange(LONG)[:, None] - torch.arange(LONG)
    visible = distance >= 0
    window = form.windows[layer]
    if window is not None:
        visible = visible & (distance < window)
    scores = at("attn.hook_attn_scores")
    assert_close(scores[..., visible], products[..., visible], "scores", **CLOSE)
    assert bool((scores[..., ~visible] < -1e4).all()), "what is not to be seen"
    assert bool((at("attn.hook_pattern")[..., ~visible] == 0).all())
    assert math.isfinite(float(scores[..., visible].abs().max()))
