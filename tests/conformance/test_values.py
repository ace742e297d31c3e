"""Each activation against an independent recomputation, in float64, from the activations that it is made of."""

from collections.abc import Iterator

import pytest
import torch

import mishformer_lens
from tests.conformance.contract import contract, flagged, unflagged
from tests.conformance.weights import Affine, Block, block_weights, final_norm
from tests.models import BATCH, D_HEAD, N_HEADS, N_LAYERS, POS, Case, left_padding, make_model, make_tokens
from tests.recording import assert_close, recorded

Named = dict[str, torch.Tensor]
TOLERANCE = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    # bfloat16 has 8 bits; HuggingFace rounds several times between two hook points.
    torch.bfloat16: {"rtol": 3e-2, "atol": 6e-2},
}
EPS = 1e-5


def record_all(case: Case, names: list[str]) -> tuple[object, Named]:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    with torch.no_grad(), recorded(points, names) as values:
        logits = model(make_tokens()).logits
    return model, {name: value[0].double() for name, value in values.items()} | {"logits": logits.double()}


def check(found: torch.Tensor, expected: torch.Tensor, case: Case, name: str) -> None:
    assert_close(found, expected, name, **TOLERANCE[case.dtype])


def test_every_activation_follows_from_its_neighbours(case: Case) -> None:
    model, values = record_all(case, unflagged(case.kind))
    checked = set()
    for name, expected in recomputed(model, case, values):
        check(values[name], expected, case, name)
        checked.add(name)
    # Every hook point has its own formula.
    assert checked == {*unflagged(case.kind), "logits"}


def recomputed(model: object, case: Case, values: Named) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and recomputed value of every activation that needs no flag, and of the logits."""
    tokens = make_tokens()
    embeddings = model.get_input_embeddings().weight.detach().double()  # type: ignore[attr-defined]
    yield "hook_embed", embeddings[tokens]
    stream = values["hook_embed"]
    if case.kind == "gpt2":
        positions = model.transformer.wpe.weight.detach().double()  # type: ignore[attr-defined]
        yield "hook_pos_embed", positions[:POS].expand(BATCH, -1, -1)
        stream = stream + values["hook_pos_embed"]
    for index in range(N_LAYERS):
        block = {
            name.removeprefix(f"blocks.{index}."): value for name, value in values.items() if f"blocks.{index}." in name
        }
        for name, value in recomputed_block(block_weights(model, case.family, index), case.kind, block, stream):
            yield f"blocks.{index}.{name}", value
        stream = block["hook_resid_post"]
    norm = final_norm(model, case.family)
    yield "ln_final.hook_scale", scale(stream)
    yield "ln_final.hook_normalized", normalize(stream, values["ln_final.hook_scale"], norm)
    unembedding = model.get_output_embeddings().weight.detach().double()  # type: ignore[attr-defined]
    yield "logits", values["ln_final.hook_normalized"] @ unembedding.T


def recomputed_block(
    weights: Block, kind: str, block: Named, stream: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    yield "hook_resid_pre", stream
    yield "ln1.hook_scale", scale(block["hook_resid_pre"])
    yield "ln1.hook_normalized", normalize(block["hook_resid_pre"], block["ln1.hook_scale"], weights.ln1)
    for letter, projection in (("q", weights.q), ("k", weights.k), ("v", weights.v)):
        yield f"attn.hook_{letter}", split_heads(projection(block["ln1.hook_normalized"]))
    query, key = block["attn.hook_q"], block["attn.hook_k"]
    if kind != "gpt2":
        yield "attn.hook_rot_q", rotate(query)
        yield "attn.hook_rot_k", rotate(key)
        query, key = block["attn.hook_rot_q"], block["attn.hook_rot_k"]
    allowed = torch.ones(POS, POS, dtype=torch.bool, device=query.device).tril()
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / D_HEAD**0.5
    found = block["attn.hook_attn_scores"]
    # Where the mask hides a key, HuggingFace's smallest number stays; nothing but its size is checked.
    assert bool((found[~allowed.expand_as(found)] < -1e30).all())
    yield "attn.hook_attn_scores", scores.where(allowed, found)
    yield "attn.hook_pattern", found.softmax(-1)
    yield "attn.hook_z", torch.einsum("bhqk,bkhd->bqhd", block["attn.hook_pattern"], block["attn.hook_v"])
    yield "hook_attn_out", weights.out(block["attn.hook_z"].flatten(-2))
    middle = block["hook_resid_pre"]
    if kind != "gpt_neox":
        yield "hook_resid_mid", block["hook_resid_pre"] + block["hook_attn_out"]
        middle = block["hook_resid_mid"]
    yield "ln2.hook_scale", scale(middle)
    yield "ln2.hook_normalized", normalize(middle, block["ln2.hook_scale"], weights.ln2)
    yield "mlp.hook_pre", weights.mlp_in(block["ln2.hook_normalized"])
    gelu = torch.nn.GELU(approximate="tanh" if kind == "gpt2" else "none")
    yield "mlp.hook_post", gelu(block["mlp.hook_pre"])
    yield "hook_mlp_out", weights.mlp_out(block["mlp.hook_post"])
    branches = block["hook_attn_out"] + block["hook_mlp_out"]
    yield "hook_resid_post", block["hook_resid_pre"] + branches


def scale(x: torch.Tensor) -> torch.Tensor:
    variance: torch.Tensor = x.var(-1, correction=0, keepdim=True)
    return (variance + EPS).sqrt()


def normalize(x: torch.Tensor, divisor: torch.Tensor, norm: Affine) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / divisor * norm.weight + norm.bias


def split_heads(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(*x.shape[:-1], N_HEADS, D_HEAD)


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of the first half of each head, as complex numbers ``x[i] + j * x[i + half]``."""
    rotary, rest = x[..., : D_HEAD // 2], x[..., D_HEAD // 2 :]
    half = rotary.shape[-1] // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=x.device) / half)
    angles = torch.arange(POS, dtype=torch.float64, device=x.device)[:, None] * frequencies
    turned = (
        torch.complex(rotary[..., :half], rotary[..., half:]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    )
    return torch.cat([turned.real, turned.imag, rest], -1)


def test_flagged_activations_follow_from_their_neighbours(case: Case) -> None:
    for name in flagged(case.kind):
        model, values = record_all(case, [*unflagged(case.kind), name])
        prefix, _, hook = name.rpartition(".")
        block = ".".join(name.split(".")[:2])
        resid_pre = values[f"{block}.hook_resid_pre"]
        if hook == "hook_mlp_in":
            middle = resid_pre if case.kind == "gpt_neox" else values[f"{block}.hook_resid_mid"]
            assert torch.equal(values[name], middle)
        elif hook == "hook_result":
            weights = block_weights(model, case.family, int(name.split(".")[1]))
            per_head = weights.out.weight.unflatten(0, (N_HEADS, D_HEAD))
            check(values[name], torch.einsum("bphd,hdm->bphm", values[f"{prefix}.hook_z"], per_head), case, name)
            check(values[f"{block}.hook_attn_out"], values[name].sum(-2) + weights.out.bias, case, name)
        else:
            assert torch.equal(values[name], resid_pre[:, :, None].expand(-1, -1, N_HEADS, -1))


def test_padding_shows_in_scores_and_pattern(case: Case) -> None:
    model = make_model(case)
    points = mishformer_lens.instrument(model).hook_points
    mask = left_padding()
    names = [
        f"blocks.{index}.attn.{hook}" for index in range(N_LAYERS) for hook in ("hook_attn_scores", "hook_pattern")
    ]
    with torch.no_grad(), recorded(points, names) as values:
        model(make_tokens(), attention_mask=mask)
    causal = torch.ones(POS, POS, dtype=torch.bool, device=mask.device).tril()
    allowed = (causal & mask.bool()[:, None, None, :]).expand(-1, N_HEADS, -1, -1)
    # A row of a padding position itself may hide every key; what it then attends to is HuggingFace's affair.
    rows = mask.bool()[:, None, :, None].expand_as(allowed)
    for name in names:
        (value,) = values[name]
        hidden = value[rows & ~allowed]
        assert bool((hidden == 0).all() if name.endswith("pattern") else (hidden < -1e30).all()), name
        if name.endswith("pattern"):
            sums = value.double().sum(-1)[mask.bool()[:, None].expand(-1, N_HEADS, -1)]
            check(sums, torch.ones_like(sums), case, name)


@pytest.mark.parametrize("name", ["hook_embed", "blocks.0.hook_resid_pre"])
def test_a_formula_that_is_wrong_would_be_noticed(kind: str, name: str) -> None:
    case = Case(kind)
    _, values = record_all(case, list(contract(kind))[:6])
    with pytest.raises(AssertionError, match=name):
        check(values[name], values[name] + 1e-3, case, name)
