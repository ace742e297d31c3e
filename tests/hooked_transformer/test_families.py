"""The drop-in on every family: numbers, configuration, weights, processing, partial passes and caches are right."""

import dataclasses
import functools
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import (
    ForwardArgumentsError,
    KeyValueCacheError,
    ProcessingError,
    UnreadableWeightError,
    UnsupportedModelError,
)
from mishformer_lens.hooked_transformer.names import hugging_face_name
from mishformer_lens.hooked_transformer.starting import has_cache_of_its_own
from mishformer_lens.hooked_transformer.transformer_lens_compat import HAS_OWN_HOOKED_TRANSFORMER, KeyValueCache
from mishformer_lens.patchers import FAMILIES
from tests.conformance.families.conftest import here
from tests.kinds import Kind, kinds
from tests.models import BATCH, D_MLP, D_MODEL, D_VOCAB, N_HEADS, N_LAYERS, POS, Case, make_model, make_tokens

PROCESSING = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
NO_PROCESSING = dict.fromkeys(PROCESSING, False)
LENGTH_MATTERS = "phi3_longrope"
"""The kind that rotates all positions of a longer text otherwise."""


IN_ONE = ("bloom", "falcon", "gpt_bigcode", "mpt")
"""The families of test_projections_in_one.py."""


def served() -> list[str]:
    """The kinds that the drop-in serves, but for those with a module of their own."""
    forms = {name: kinds()[name] for name in here()}
    return [
        name
        for name, form in forms.items()
        if FAMILIES[form.family].drop_in is not None
        and form.family not in IN_ONE
        and form.norms != "stream"
        and form.final_norm
    ]


@pytest.fixture(params=served())
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of model of the families that follow from their parts."""
    return str(request.param)


@pytest.fixture
def form(kind: str) -> Kind:
    """What blocks of that kind look like."""
    return kinds()[kind]


@pytest.fixture
def model(kind: str) -> HookedTransformer:
    """The drop-in on a tiny model of that kind."""
    return drop_in(kind)


def drop_in(kind: str, **changes: Any) -> HookedTransformer:
    return HookedTransformer(make_model(Case(kind), **changes))


close = functools.partial(torch.testing.assert_close, rtol=1e-3, atol=3e-5)


def log_probs(model: HookedTransformer) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(make_tokens())
    return logits.log_softmax(-1)


def cached(model: HookedTransformer) -> tuple[torch.Tensor, Any]:
    with torch.no_grad():
        return model.run_with_cache(make_tokens())


def test_numbers_are_hugging_face_s(kind: str, model: HookedTransformer) -> None:
    plain, tokens = make_model(Case(kind)), make_tokens()
    with torch.no_grad():
        expected = plain(tokens, labels=tokens)
    logits, loss = model(tokens, return_type="both")
    assert torch.equal(logits, expected.logits)
    assert torch.equal(loss, expected.loss)
    assert torch.equal(cached(model)[0], expected.logits)


def test_configuration(kind: str, form: Kind, model: HookedTransformer) -> None:
    cfg = model.cfg
    assert (cfg.n_layers, cfg.n_heads, cfg.d_model, cfg.d_vocab) == (N_LAYERS, N_HEADS, D_MODEL, D_VOCAB)
    assert (cfg.d_head, cfg.d_mlp) == (form.d_head, D_MLP)
    assert cfg.n_key_value_heads == (None if form.key_value_heads == N_HEADS else form.key_value_heads)
    assert cfg.normalization_type == ("RMS" if form.norm == "rms" else "LN")
    assert cfg.positional_embedding_type == ("rotary" if form.rotary else "standard")
    if form.rotary:
        assert cfg.rotary_dim == (form.rotated or (form.d_head, 0))[0]
    assert cfg.parallel_attn_mlp == form.parallel
    assert cfg.gated_mlp == form.gated
    assert cfg.use_qk_norm == bool(form.query_key_norm)
    assert cfg.use_normalization_before_and_after == (form.norms == "both" or "ln1_post" in form.modules)
    if cfg.use_attn_scale:
        assert cfg.attn_scale == pytest.approx(1 / form.scaling)
    else:
        assert form.scaling == 1
    assert cfg.attn_scores_soft_cap == (form.softcap or -1.0)
    if any(form.windows):
        assert cfg.attn_types == ["global" if window is None else "local" for window in form.windows]
        assert cfg.window_size == max(filter(None, form.windows))
    rotary = model.hf_model.config.to_dict()
    if kind == "llama3":
        assert cfg.rotary_base == 500000
        assert cfg.use_NTK_by_parts_rope
        assert (cfg.NTK_by_parts_factor, cfg.NTK_original_ctx_len) == (8.0, 16)
    elif form.rotary:
        assert not cfg.use_NTK_by_parts_rope, rotary


def test_weights_are_those_that_hugging_face_computes_with(form: Kind, model: HookedTransformer) -> None:
    _, cache = cached(model)
    block, attn, mlp = model.blocks[0], model.blocks[0].attn, model.blocks[0].mlp
    before = cache["blocks.0.hook_resid_pre"]
    read = before if "ln1_post" not in form.modules and form.norms == "after" else block.ln1(before)
    for letter in "QKV":
        shared = "" if letter == "Q" else "_"
        weight, bias = getattr(attn, f"{shared}W_{letter}"), getattr(attn, f"{shared}b_{letter}")
        heads = N_HEADS if letter == "Q" else form.key_value_heads
        assert weight.shape == (heads, D_MODEL, form.d_head)
        found = torch.einsum("bpm,hmd->bphd", read, weight) + bias
        limit = model.hf_model.config.to_dict().get("clip_qkv")
        close(found if limit is None else found.clamp(-limit, limit), _clipped(cache, letter, limit))
        repeated = getattr(attn, f"W_{letter}")
        assert torch.equal(repeated, weight.repeat_interleave(N_HEADS // heads, dim=0))
        assert getattr(attn, f"b_{letter}").shape == (N_HEADS, form.d_head)
    written = torch.einsum("bphd,hdm->bpm", cache["blocks.0.attn.hook_z"], attn.W_O) + attn.b_O
    close(_behind(block, "1", form, written), cache["blocks.0.hook_attn_out"])
    read = cache[f"blocks.0.hook_resid_{'pre' if form.parallel else 'mid'}"]
    read = read if form.norms == "after" else block.ln2(read)
    if form.gated:
        close(read @ mlp.W_gate + mlp.b_gate, cache["blocks.0.mlp.hook_pre"])
        close(read @ mlp.W_in + mlp.b_in, cache["blocks.0.mlp.hook_pre_linear"])
        assert model.W_gate is not None
    else:
        close(read @ mlp.W_in + mlp.b_in, cache["blocks.0.mlp.hook_pre"])
        assert model.W_gate is None
        with pytest.raises(AttributeError, match="W_gate"):
            _ = mlp.W_gate
    written = cache["blocks.0.mlp.hook_post"] @ mlp.W_out + mlp.b_out
    close(_behind(block, "2", form, written), cache["blocks.0.hook_mlp_out"])
    assert model.W_K.shape == (N_LAYERS, N_HEADS, D_MODEL, form.d_head)
    assert model.QK.AB.shape == model.OV.AB.shape == (N_LAYERS, N_HEADS, D_MODEL, D_MODEL)


def _clipped(cache: Any, letter: str, limit: float | None) -> torch.Tensor:
    seen: torch.Tensor = cache[f"blocks.0.attn.hook_{letter.lower()}"]
    return seen if limit is None else seen.clamp(-limit, limit)


def _behind(block: Any, number: str, form: Kind, written: torch.Tensor) -> torch.Tensor:
    """What comes of what attention or MLP wrote, behind a norm if there is one."""
    name = f"ln{number}" if form.norms == "after" else f"ln{number}_post"
    return block.parts[name](written) if name in block.parts else written


def test_embedding_and_unembedding(form: Kind, model: HookedTransformer) -> None:
    logits, cache = cached(model)
    assert torch.equal(model.embed(make_tokens()), cache["hook_embed"])
    close(model.W_E[make_tokens()], cache["hook_embed"])
    if form.learned_positions:
        assert torch.equal(model.pos_embed(make_tokens()), cache["hook_pos_embed"])
        assert torch.equal(model.W_pos[:POS].expand(BATCH, -1, -1), cache["hook_pos_embed"])
    else:
        with pytest.raises(AttributeError, match="W_pos"):
            _ = model.W_pos
    normalized = model.ln_final(cache[f"blocks.{N_LAYERS - 1}.hook_resid_post"])
    cap = model.cfg.output_logits_soft_cap
    for found in (model.unembed(normalized), normalized @ model.W_U + model.b_U):
        close(found if cap < 0 else cap * torch.tanh(found / cap), logits)


def test_norms_are_those_of_transformer_lens(form: Kind, model: HookedTransformer) -> None:
    _, cache = cached(model)
    if form.norms == "after":
        before, name = cache["blocks.1.hook_resid_post"], "ln_final"
    else:
        before, name = cache["blocks.0.hook_resid_pre"], "blocks.0.ln1"
    norm = model.ln_final if name == "ln_final" else model.blocks[0].ln1
    if form.norm == "rms":
        scale = (before.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
        close(before / scale, cache[f"{name}.hook_normalized"])
        close(before / scale * norm.w, norm(before))
        assert not hasattr(norm, "b")
    else:
        centred = before - before.mean(-1, keepdim=True)
        scale = (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
        close(centred / scale * norm.w + norm.b, norm(before))
    close(scale, cache[f"{name}.hook_scale"])


def test_a_weight_that_is_written_is_what_the_model_computes_with(form: Kind, model: HookedTransformer) -> None:
    plain = log_probs(model)
    for name in model.tl_parameters():
        if name.startswith("blocks.0."):
            continue  # the other layer has the same
        component, _, weight = name.rpartition(".")
        part = model.mod_dict[component]
        value = getattr(part, weight).detach().clone()
        # A bias of keys shifts all scores of a query alike, where nothing stands between it and them.
        felt = not (name.endswith("b_K") and not form.rotary)
        if not _has(part, weight):
            if component != "unembed" and "ln" in component:
                with pytest.raises(UnreadableWeightError, match="has no such weight"):
                    setattr(part, weight, value)
            continue
        setattr(part, weight, value + torch.linspace(0.1, 1, value.shape[-1]))
        close(getattr(part, weight), value + torch.linspace(0.1, 1, value.shape[-1]))
        assert not felt or not torch.equal(log_probs(model), plain), name
        setattr(part, weight, value)
    torch.testing.assert_close(log_probs(model), plain, rtol=1e-3, atol=1e-4)


def _has(part: Any, weight: str) -> bool:
    """Whether HuggingFace's model has a parameter behind a weight."""
    if weight == "b":
        return part.module._parameters.get("bias") is not None
    if weight == "w":
        return bool(list(part.module.parameters()))
    if not weight.lstrip("_").startswith("b_"):
        return True
    view = vars(type(part))[weight]
    return view.module_of(part)._parameters.get("bias") is not None


def test_heads_that_several_queries_share_are_written_once(form: Kind, model: HookedTransformer) -> None:
    attn = model.blocks[0].attn
    new = torch.ones(form.key_value_heads, D_MODEL, form.d_head)
    attn._W_K = new
    assert torch.equal(attn._W_K, new)
    if form.key_value_heads == N_HEADS:
        attn.W_K = new * 2
        assert torch.equal(attn._W_K, new * 2)
        model.set_ungroup_grouped_query_attention(True)
    else:
        with pytest.raises(UnreadableWeightError, match=r"Assign to blocks\.0\.attn\._W_K"):
            attn.W_K = torch.ones(N_HEADS, D_MODEL, form.d_head)
        with pytest.raises(ForwardArgumentsError, match=f"keys and values have {form.key_value_heads} heads"):
            model.set_ungroup_grouped_query_attention(True)
    assert torch.equal(attn.W_K, attn._W_K.repeat_interleave(N_HEADS // form.key_value_heads, dim=0))


def _refused(form: Kind, chosen: dict[str, bool], model: HookedTransformer) -> str | None:
    """Why processing is refused, if it is."""
    if chosen["fold_ln"] and form.norms == "after":
        return "fold_ln cannot be done"
    clipped = model.hf_model.config.to_dict().get("clip_qkv")
    return "fold_value_biases cannot be done" if chosen["fold_value_biases"] and clipped else None


@pytest.mark.parametrize("which", [*PROCESSING, "all"])
def test_processing_keeps_predictions_and_is_undone(form: Kind, model: HookedTransformer, which: str) -> None:
    plain, before = log_probs(model), {name: value.clone() for name, value in model.state_dict().items()}
    chosen = {name: which in ("all", name) for name in PROCESSING}
    refused = _refused(form, chosen, model)
    if refused is not None:
        with pytest.raises(ProcessingError, match=refused):
            model.process_weights_(**chosen)
    else:
        model.process_weights_(**chosen)
        close(log_probs(model), plain, atol=1e-4)
        folded = {"rms": "RMSPre", "layer": "LNPre"} if chosen["fold_ln"] else {"rms": "RMS", "layer": "LN"}
        assert model.cfg.normalization_type == folded[form.norm]
        _check_processed(form, model, chosen)
        model.undo_processing()
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(log_probs(model), plain)


def _check_processed(form: Kind, model: HookedTransformer, chosen: dict[str, bool]) -> None:
    if chosen["fold_ln"]:
        assert (model.ln_final.w == 1).all()
        assert (model.blocks[0].ln1.w == 1).all()
        assert (model.blocks[0].ln2.w == 1).all()
        assert "ln_final.w" not in model.to_transformer_lens_state_dict()
        if form.norms == "both":
            assert (model.blocks[0].ln1_post.w != 1).any()
            assert "blocks.0.ln1_post.w" in model.to_transformer_lens_state_dict()
    centred = form.norm == "layer"
    if chosen["center_writing_weights"]:
        assert (model.W_O.mean(-1).abs().max() < 1e-5) == centred
        assert (model.W_E.mean(-1).abs().max() < 1e-5) == centred
    if chosen["center_unembed"]:
        assert (model.W_U.mean(-1).abs().max() < 1e-5) == (model.cfg.output_logits_soft_cap < 0)
    if chosen["fold_value_biases"]:
        assert not model.b_V.any()


def test_transformer_lens_s_state_dict_there_and_back(model: HookedTransformer) -> None:
    plain = log_probs(model)
    values = {name: value.clone() for name, value in model.to_transformer_lens_state_dict().items()}
    with torch.no_grad():
        for parameter in model.hf_model.parameters():
            parameter.add_(0.1)
    assert not torch.equal(log_probs(model), plain)
    model.load_and_process_state_dict(values, **NO_PROCESSING)
    close(log_probs(model), plain)
    other = {name.replace("blocks.0.mlp", "blocks.0.mpl"): value for name, value in values.items()}
    with pytest.raises(ProcessingError, match=r"Did you mean 'blocks\.0\.mlp"):
        model.load_and_process_state_dict(other, **NO_PROCESSING)


def test_passes_of_some_layers(model: HookedTransformer) -> None:
    logits, cache = cached(model)
    tokens = make_tokens()
    residuals = [cache[f"blocks.{layer}.hook_resid_pre"] for layer in range(N_LAYERS)]
    residuals.append(cache[f"blocks.{N_LAYERS - 1}.hook_resid_post"])
    with torch.no_grad():
        for layer, residual in enumerate(residuals):
            assert torch.equal(model(tokens, stop_at_layer=layer), residual)
            assert torch.equal(model(residual, start_at_layer=layer), logits)
        assert torch.equal(model.blocks[1](residuals[1]), residuals[2])


def test_key_value_cache(kind: str, form: Kind, model: HookedTransformer) -> None:
    tokens = make_tokens()
    whole = cached(model)[0]
    keys_and_values = KeyValueCache.init_cache(model.cfg, model.cfg.device, BATCH)
    assert keys_and_values[0].past_keys.shape[2] == form.key_value_heads
    with torch.no_grad():
        first = model(tokens[:, :4], past_kv_cache=keys_and_values)
        assert keys_and_values[1].past_keys.shape == (BATCH, 4, form.key_value_heads, form.d_head)
        if any(form.windows) and has_cache_of_its_own(model.instrumentation):
            with pytest.raises(KeyValueCacheError, match="would have 7 keys, and some layers see"):
                model(tokens[:, 4:], past_kv_cache=keys_and_values)
            return
        rest = model(tokens[:, 4:], past_kv_cache=keys_and_values)
        close(torch.cat([first, rest], dim=1), whole)
        assert keys_and_values[0].past_values.shape == (BATCH, POS, form.key_value_heads, form.d_head)
        keys_and_values.freeze()
        next_one = model(tokens[:, :1], past_kv_cache=keys_and_values)
        residual = model(tokens[:, :1], past_kv_cache=keys_and_values, stop_at_layer=1)
        close(model(residual, start_at_layer=1, past_kv_cache=keys_and_values), next_one)
    assert keys_and_values[0].past_values.shape[1] == POS


def test_generation(kind: str, model: HookedTransformer) -> None:
    tokens = make_tokens(batch=1)
    arguments = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    expected = make_model(Case(kind)).generate(tokens, attention_mask=torch.ones_like(tokens), **arguments)
    found = model.generate(tokens, max_new_tokens=5, do_sample=False, stop_at_eos=False, verbose=False)
    assert torch.equal(found, expected)
    if kind != LENGTH_MATTERS:
        slow = model.generate(
            tokens, max_new_tokens=5, do_sample=False, stop_at_eos=False, verbose=False, use_past_kv_cache=False
        )
        assert torch.equal(slow, expected)


def test_hooks_act_on_the_heads_that_share_one_of_keys(form: Kind, model: HookedTransformer) -> None:
    seen: dict[str, torch.Tensor] = {}

    def zero_last(value: torch.Tensor, hook: Any) -> torch.Tensor:
        assert value.shape == (BATCH, POS, form.key_value_heads, form.d_head)
        value = value.clone()
        value[:, :, -1] = 0
        return value

    with torch.no_grad():
        plain = model.run_with_cache(make_tokens())[1]["blocks.0.attn.hook_z"]
        model.run_with_hooks(
            make_tokens(),
            fwd_hooks=[
                ("blocks.0.attn.hook_v", zero_last),
                ("blocks.0.attn.hook_z", lambda value, hook: seen.update({hook.name: value})),
            ],
        )
    changed = (seen["blocks.0.attn.hook_z"] - plain).abs().amax(dim=(0, 1, 3)) > 0
    shared = N_HEADS // form.key_value_heads
    assert changed.tolist() == [head >= N_HEADS - shared for head in range(N_HEADS)]


def test_the_residual_stream_decomposes(form: Kind, model: HookedTransformer) -> None:
    _, cache = cached(model)
    last = cache[f"blocks.{N_LAYERS - 1}.hook_resid_post"]
    close(cache.decompose_resid(N_LAYERS).sum(0), last)
    close(cache.accumulated_resid(N_LAYERS)[-1], last)
    heads = cache.stack_head_results(N_LAYERS)
    assert heads.shape == (N_LAYERS * N_HEADS, BATCH, POS, D_MODEL)
    direct = torch.stack([cache[f"blocks.{layer}.hook_attn_out"] for layer in range(N_LAYERS)]).sum(0)
    biases = sum(block.attn.b_O for block in model.blocks)
    off = (heads.sum(0) + biases - direct).abs().max()
    # Behind attention a norm stands between what heads give and what is added: as in TransformerLens.
    assert (off < 1e-4) == (form.norms == "before" and "ln1_post" not in form.modules)
    assert cache.logit_attrs(heads, 3).shape == heads.shape[:-1]


def test_attention_by_hand(kind: str, form: Kind, model: HookedTransformer) -> None:
    _, cache = cached(model)
    block = model.blocks[0]
    before = cache["blocks.0.hook_resid_pre"]
    read = before if form.norms == "after" else block.ln1(before)
    if kind in NOT_BY_HAND or (block.attn.window or POS) < POS:
        with pytest.raises(ForwardArgumentsError, match=r"Run the layer: model\.blocks\[i\]\(residual\)"):
            block.attn(read, read, read)
        return
    with torch.no_grad():
        found = block.attn(read, read, read)
    close(_behind(block, "1", form, found), cache["blocks.0.hook_attn_out"])


NOT_BY_HAND = {
    # They clip, do not rotate in some layers, or keep a table of angles.
    *("olmo", "cohere2", "smollm3", "olmo3", "gemma3", "ministral3", "gptj"),
    # Their rotations are scaled.
    *("llama3", "qwen2_yarn", "qwen3", "ministral", "phi3_longrope", "mistral_yarn"),
}


def test_loaded_from_a_folder(kind: str, model: HookedTransformer, tmp_path: Path) -> None:
    model.hf_model.save_pretrained(tmp_path)
    # Some releases' sdpa knows nothing of soft caps.
    again = HookedTransformer.from_pretrained(
        tmp_path, device="cpu", fold_value_biases=False, attn_implementation="eager"
    )
    close(log_probs(again), log_probs(model))
    assert again.cfg.act_fn == model.cfg.act_fn
    given = HookedTransformer.from_pretrained(tmp_path, hf_model=make_model(Case(kind)), first_n_layers=None)
    assert torch.equal(log_probs(given), log_probs(model))


def test_a_projection_behind_the_embedding_is_refused() -> None:
    model = make_model(Case("opt"), word_embed_proj_dim=16)
    with pytest.raises(UnsupportedModelError, match="gives 16 numbers and its blocks take 32"):
        HookedTransformer(model)
    assert model(make_tokens()).logits.shape == (BATCH, POS, D_VOCAB)


@pytest.mark.parametrize(
    ("short", "name"),
    {
        "Llama-2-7b-chat": "meta-llama/Llama-2-7b-chat-hf",
        "gemma-2-2b": "google/gemma-2-2b",
        "qwen2.5-0.5b-instruct": "Qwen/Qwen2.5-0.5B-Instruct",
        "tiny-stories-instruct-1L-21M": "roneneldan/TinyStories-Instuct-1Layer-21M",
        "opt": "facebook/opt-125m",
        "gpt-j-6B": "EleutherAI/gpt-j-6B",
        "olmo-2-7b": "allenai/OLMo-2-1124-7B",
        "meta-llama/Llama-3.2-1B": "meta-llama/Llama-3.2-1B",
        "some/other": "some/other",
    }.items(),
)
def test_short_names(short: str, name: str) -> None:
    assert hugging_face_name(short) == name


EXPRESSIBLE: dict[str, dict[str, Any]] = {
    # A bias of a gate has no place there, nor have rotations that are scaled by YaRN or linearly.
    **{kind: {"mlp_bias": False} for kind in ("llama", "granite")},
    **{kind: {} for kind in ("llama_ungrouped", "llama3", "mistral", "qwen2", "gemma", "gemma2", "phi", "phi3")},
    **{kind: {} for kind in ("gpt_neo", "gptj", "opt", "cohere", "glm", "glm4", "stablelm_parallel", "starcoder2")},
}
"""The kinds that TransformerLens's own class computes, given our configuration and weights; with what is left out."""


@pytest.mark.skipif(
    not HAS_OWN_HOOKED_TRANSFORMER, reason="TransformerLens has no HookedTransformer from 4.0 on: earlier cells compare"
)
@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated:DeprecationWarning")
@pytest.mark.parametrize("processed", [False, True], ids=["plain", "processed"])
@pytest.mark.parametrize("kind", [kind for kind in here() if kind in EXPRESSIBLE])
def test_transformer_lens_s_own_class_computes_the_same_from_our_configuration_and_weights(
    kind: str, processed: bool
) -> None:
    model = drop_in(kind, **EXPRESSIBLE[kind])
    values = {name: value.clone() for name, value in model.to_transformer_lens_state_dict().items()}
    theirs = reference(model)
    theirs.load_state_dict(values, strict=False)
    assert {name for name, _ in theirs.named_parameters()} == set(values)
    # Within every window: some releases of transformers do not heed those that their configurations have.
    tokens = make_tokens(pos=4)
    if processed and kinds()[kind].norm == "layer" and kinds()[kind].gated and bool(model.blocks[0].ln2.b.any()):
        pytest.skip("TransformerLens has no bias of a gate to fold the bias of a norm into, and leaves it out")
    if processed:
        model.process_weights_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs.process_weights_(center_unembed=model.cfg.output_logits_soft_cap < 0)
        ours = model.to_transformer_lens_state_dict()
        for name, value in theirs.named_parameters():
            if name.endswith("W_gate") and kinds()[kind].norm == "layer":
                # Not centred there. What it reads is, so that predictions are the same.
                value = value - value.mean(0, keepdim=True)
            close(ours[name], value, atol=1e-4, msg=functools.partial("{}: {}".format, name))
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
        expected, theirs_cache = theirs.run_with_cache(tokens)
    close(logits.log_softmax(-1), expected.log_softmax(-1), atol=1e-4)
    close(cache.decompose_resid(2), theirs_cache.decompose_resid(2), atol=1e-4)
    close(cache.stack_head_results(2), theirs_cache.stack_head_results(2), atol=1e-4)
    close(cache.stack_neuron_results(2), theirs_cache.stack_neuron_results(2), atol=1e-4)


def reference(model: HookedTransformer) -> Any:
    """TransformerLens's own class by our configuration, with weights of its own."""
    from transformer_lens import HookedTransformer as Reference
    from transformer_lens import HookedTransformerConfig

    known = {field.name for field in dataclasses.fields(HookedTransformerConfig)}
    fields = {name: value for name, value in vars(model.cfg).items() if name in known}
    return Reference(HookedTransformerConfig.from_dict(fields | {"tokenizer_name": None})).eval()
