"""What is compared with TransformerLens 2.15.4's own ``HookedTransformer``, on equal weights.

Each scenario takes a model, either of the two, and returns values by name. Where TransformerLens 2.15.4 is installed
the two are compared directly; elsewhere the drop-in is compared with golden values, which ``make_golden.py`` writes.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch

from mishformer_lens.errors import EagerFallbackWarning
from mishformer_lens.hooked_transformer.transformer_lens_compat import KeyValueCache

Values = dict[str, torch.Tensor]

D_VOCAB = 300


def tokens() -> torch.Tensor:
    """Tokens ``[batch, pos]``, ``[2, 7]``; none of them is the last of the vocabulary, which is padding."""
    return torch.randint(2, D_VOCAB - 1, (2, 7), generator=torch.Generator().manual_seed(3))


def logits(model: Any) -> Values:
    return {"logits": model(tokens()), "of one sequence": model(tokens()[0])}


def log_probs(model: Any) -> Values:
    return {"log probs": model(tokens()).log_softmax(-1)}


def loss(model: Any) -> Values:
    both = model(tokens(), return_type="both")
    return {
        "loss": model(tokens(), return_type="loss"),
        "per token": model(tokens(), return_type="loss", loss_per_token=True),
        "both, logits": both.logits,
        "both, loss": both.loss,
    }


def partial_runs(model: Any) -> Values:
    values = {f"stop at {layer}": model(tokens(), stop_at_layer=layer) for layer in (0, 1, 2, -1)}
    residual = values["stop at 1"]
    values["start at 1"] = model(residual, start_at_layer=1)
    values["start at -1"] = model(residual, start_at_layer=-1)
    values["loss from 1"] = model(residual, start_at_layer=1, tokens=tokens(), return_type="loss")
    values["start at 0, stop at 1"] = model(values["stop at 0"], start_at_layer=0, stop_at_layer=1)
    return values


def _cached(model: Any, **arguments: Any) -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerFallbackWarning)
        output, cache = model.run_with_cache(tokens(), **arguments)
    return output, cache


def _comparable(activations: Any) -> Values:
    # TransformerLens masks scores with -inf, HuggingFace with the lowest number of the dtype.
    return {name: value.clamp(min=-1e6) for name, value in activations.items()}


def cache(model: Any) -> Values:
    return _comparable(_cached(model)[1])


def _by_heads(values: Values, n_heads: int) -> Values:
    """With every value of ln1 once for each head.

    TransformerLens normalises a copy for each head when a flag for split inputs is set. The drop-in, where nobody may
    edit the copies, normalises once what they all are.
    """
    return {
        name: value[:, :, None].expand(-1, -1, n_heads, -1) if ".ln1." in name and value.dim() == 3 else value
        for name, value in values.items()
    }


def cache_with_flags(model: Any) -> Values:
    switches = (model.set_use_attn_result, model.set_use_split_qkv_input, model.set_use_hook_mlp_in)
    for switch in (*switches, model.set_use_attn_in):
        switch(True)
    try:
        return _by_heads(_comparable(_cached(model)[1]), model.cfg.n_heads)
    finally:
        for switch in (*switches, model.set_use_attn_in):
            switch(False)


def cache_of_gradients(model: Any) -> Values:
    activations = _cached(model, return_type="loss", incl_bwd=True)[1]
    # TransformerLens runs ln1 once each for q, k and v; what it caches there is the gradient of one of the three.
    return {name: value for name, value in activations.items() if name.endswith("_grad") and "ln1" not in name}


def cache_of_some(model: Any) -> Values:
    one = _cached(model, names_filter="blocks.1.attn.hook_z")[1]
    several = _cached(model, names_filter=["blocks.0.hook_resid_pre", "ln_final.hook_scale"])[1]
    chosen = _cached(model, names_filter=lambda name: name.endswith("hook_mlp_out"))[1]
    sliced = _cached(
        model, names_filter=lambda name: name.endswith(("resid_post", "hook_v", "pattern")), pos_slice=(1, 4)
    )[1]
    _, alone = model.run_with_cache(tokens()[:1], remove_batch_dim=True, names_filter="hook_embed")
    values = {**one, **several, **chosen, "hook_embed": alone["hook_embed"]}
    return values | {f"sliced {name}": value for name, value in sliced.items()}


def cache_methods(model: Any) -> Values:
    _, activations = _cached(model)
    answers = tokens()[:, -1]
    # Not for the last layer: from 4.0 on TransformerLens computes the final layer norm's scale anew there.
    residual, _ = activations.accumulated_resid(1, incl_mid=False, apply_ln=True, return_labels=True)
    heads = activations.stack_head_results(layer=2, apply_ln=True, incl_remainder=True)
    return {
        "accumulated": residual,
        "decomposed": activations.decompose_resid(1, apply_ln=True),
        "decomposed, mlp input": activations.decompose_resid(1, mlp_input=True),
        "heads": heads,
        "neurons": activations.stack_neuron_results(1),
        "all": activations.get_full_resid_decomposition(2, expand_neurons=False, apply_ln=True),
        "patterns": activations.stack_activation("pattern"),
        "logit attributions": activations.logit_attrs(heads[:, :, -1], answers, pos_slice=-1, has_batch_dim=True),
        "applied": activations.apply_ln_to_stack(heads, layer=1, mlp_input=False),
    }


def interventions(model: Any) -> Values:
    def zero_head(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        activation[:, :, 1] = 0
        return activation

    def halve(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        return activation / 2

    names = ["hook_embed", "ln_final.hook_scale", "ln_final.hook_normalized"]
    names += [f"blocks.0.{name}" for name in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "ln2.hook_scale")]
    names += [f"blocks.1.{name}" for name in ("mlp.hook_pre", "mlp.hook_post", "attn.hook_q", "attn.hook_v")]
    values = {name: model.run_with_hooks(tokens(), fwd_hooks=[(name, halve)]) for name in names}
    values["zeroed head"] = model.run_with_hooks(
        tokens(), fwd_hooks=[(lambda name: name.endswith("hook_z"), zero_head)], return_type="loss"
    )
    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_k", halve)]):
        values["in a context"] = model(tokens())
    values["afterwards"] = model(tokens())
    return values


def weights(model: Any) -> Values:
    names = [f"{kind}_{part}" for kind in "Wb" for part in ("Q", "K", "V", "O", "in", "out", "U")]
    values = {name: getattr(model, name) for name in [*names, "W_E"]}
    if model.cfg.positional_embedding_type == "standard":
        values |= {"W_pos": model.W_pos, "W_E_pos": model.W_E_pos}
    attn = model.blocks[1].attn
    return values | {
        "QK": model.QK.AB,
        "OV": model.OV.AB,
        "QK of a layer": attn.QK.AB,
        "W_O of a layer": attn.W_O,
        "W_in of a layer": model.blocks[1].mlp.W_in,
        "directions": model.tokens_to_residual_directions(tokens()),
        "a direction": model.tokens_to_residual_directions(5),
        **{f"composition {mode}": model.all_composition_scores(mode) for mode in "QKV"},
        "bias 0": model.accumulated_bias(0),
        "bias 2": model.accumulated_bias(2),
        "bias 1, mlp input": model.accumulated_bias(1, mlp_input=True),
        "bias 1, no mlp": model.accumulated_bias(1, include_mlp_biases=False),
    }


def layer_norms(model: Any) -> Values:
    parts = {
        f"blocks.{index}.{name}": getattr(block, name)
        for index, block in enumerate(model.blocks)
        for name in ("ln1", "ln2")
    }
    values = {f"{name}.{weight}": getattr(part, weight) for name, part in parts.items() for weight in ("w", "b")}
    residual = torch.linspace(-1, 1, model.cfg.d_model).square()[None, None]
    return values | {"normalized": model.ln_final(residual), "unembedded": model.unembed(residual)}


def key_value_cache(model: Any) -> Values:
    past = KeyValueCache.init_cache(model.cfg, model.cfg.device, 2)
    values = {"prefix": model(tokens()[:, :3], past_kv_cache=past)}
    past.freeze()
    values["continued while frozen"] = model(tokens()[:, 5:], past_kv_cache=past)
    past.unfreeze()
    values["continued"] = model(tokens()[:, 3:6], past_kv_cache=past)
    values["one more"] = model(tokens()[:, 6:], past_kv_cache=past)
    values["mask"] = past.previous_attention_mask
    return values


def masked(model: Any) -> Values:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, :3] = 0
    # What padding attends to is nobody's business: TransformerLens and HuggingFace differ there.
    logits = model(tokens(), attention_mask=mask)
    return {"logits": logits[mask.bool()], "loss": model(tokens(), attention_mask=mask, return_type="loss")}


def generation(model: Any) -> Values:
    arguments: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "verbose": False}
    first = model.generate(tokens(), stop_at_eos=False, **arguments)
    return {
        "tokens": first,
        "without a cache": model.generate(tokens(), stop_at_eos=False, use_past_kv_cache=False, **arguments),
        "ended": model.generate(tokens(), eos_token_id=int(first[0, 9]), **arguments),
        "temperature 0": model.generate(
            tokens(), max_new_tokens=3, temperature=0.0, do_sample=True, stop_at_eos=False, verbose=False
        ),
        "embeddings": model.generate(model.embed(tokens()), return_type="tokens", stop_at_eos=False, **arguments),
    }


SCENARIOS: dict[str, Callable[[Any], Values]] = {
    function.__name__: function
    for function in (
        logits,
        log_probs,
        loss,
        partial_runs,
        cache,
        cache_with_flags,
        cache_of_gradients,
        cache_of_some,
        cache_methods,
        interventions,
        weights,
        layer_norms,
        key_value_cache,
        masked,
        generation,
    )
}

PROCESSED: tuple[str, ...] = ("logits", "log_probs", "loss", "cache", "cache_methods", "weights", "key_value_cache")
"""The scenarios that are also compared after TransformerLens's default weight processing."""
