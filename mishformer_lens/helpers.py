"""The objects that patched code calls beside hook points: which of them a part of a block carries."""

from collections.abc import Callable, Mapping

from mishformer_lens.attention_call import AttentionCall
from mishformer_lens.attention_scores import AttentionScores
from mishformer_lens.experts import ExpertHooks, Routing
from mishformer_lens.hooks import HookPoint
from mishformer_lens.lending import Place
from mishformer_lens.norms import NormHooks
from mishformer_lens.on_demand import AttentionInputs, HeadResults
from mishformer_lens.patchers import Family
from mishformer_lens.patchers.contract import EXPERT_HOOKS, EXPERTS
from mishformer_lens.shared_norm import SharedNorm

Points = Mapping[str, HookPoint]
"""The hook points of a block, by their names in it."""


def helpers_of_block(points: Points, family: Family, place: Callable[[str], Place]) -> dict[str, dict[str, object]]:
    """The helpers of a block's parts: part to name to helper. The block itself is the part without a name.

    Args:
        place: gives the place of a part of the block.
    """
    attention = place("attn")
    inputs = AttentionInputs(points, attention, family)
    scores = AttentionScores(points["attn.hook_attn_scores"], points["attn.hook_pattern"])
    results = HeadResults(points["attn.hook_result"], attention, family)
    in_attention: dict[str, object] = {
        "attention_call": AttentionCall(points, scores),
        "attention_inputs": inputs,
        "attention_scores": scores,
        "head_results": results,
    }
    crossing: dict[str, dict[str, object]] = {}
    if "cross_attn.hook_z" in points:
        crossing["cross_attn"] = _in_cross_attention(points, place("cross_attn"), family)
    norms = [name.removesuffix(".hook_scale") for name in points if name.endswith(".hook_scale")]
    in_block: dict[str, object] = {"attention_inputs": inputs}
    if family.block.shared_norm:
        in_block["shared_norm"] = _shared_norm(points, inputs, family)
    return {
        "": in_block,
        "attn": in_attention,
        **crossing,
        **{part: helpers_of_norm(points, part, family) for part in norms},
    }


def _in_cross_attention(points: Points, attention: Place, family: Family) -> dict[str, object]:
    """What the patched code of an attention finds there where it attends to what an encoder gave."""
    return {
        "attention_scores": AttentionScores(points["cross_attn.hook_attn_scores"], points["cross_attn.hook_pattern"]),
        "head_results": HeadResults(points["cross_attn.hook_result"], attention, family),
    }


def _shared_norm(points: Points, inputs: AttentionInputs, family: Family) -> SharedNorm:
    hooks = "hook_scale", "hook_normalized"
    of_attention = *inputs.hooks, *(points[f"ln1.{hook}"] for hook in hooks)
    of_mlp = {hook: points[f"ln2.{hook}"] for hook in hooks} | helpers_of_norm(points, "ln2", family)
    return SharedNorm(points["hook_mlp_in"], of_attention, of_mlp)


def helpers_of_norm(points: Points, part: str, family: Family) -> dict[str, object]:
    """The helpers of the norm that is called ``part``: name to helper."""
    heads_first = part.startswith("attn.") and family.attention.query_key_norm in ("head pos", "each head")
    if family.has_torch_norm(part):
        return {"heads_first": True} if heads_first else {}
    return {"norm_hooks": NormHooks(points[f"{part}.hook_scale"], points[f"{part}.hook_normalized"], heads_first)}


def helpers_of_experts(points: Points, family: Family, place: Place, n_experts: int) -> dict[str, object]:
    """The helpers that the part at ``place`` carries for the experts of its block: name to helper.

    Args:
        points: the hook points of the model, by their names.
    """
    if not n_experts:
        return {}
    helpers: dict[str, object] = {}
    if place.part == "mlp":
        weights, indices = (points[f"blocks.{place.layer}.mlp.hook_expert_{each}"] for each in ("weights", "indices"))
        helpers["routing"] = Routing(weights, indices, n_experts)
    if place.part == ("mlp" if family.has_expert_modules else EXPERTS):
        inside = (
            tuple(points[f"blocks.{place.layer}.{EXPERTS}.{number}.{hook}"] for hook in EXPERT_HOOKS)
            for number in range(n_experts)
        )
        helpers["expert_hooks"] = ExpertHooks(inside, place)
    return helpers
