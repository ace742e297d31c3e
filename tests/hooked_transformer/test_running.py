"""The forward pass: its parts, its caches, generation; and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import DynamicCache, TextStreamer

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import ForwardArgumentsError, KeyValueCacheError
from mishformer_lens.hooked_transformer.transformer_lens_compat import KeyValueCache
from tests import capabilities
from tests.hooked_transformer.making import TEXTS, make_hf_model, make_model_of
from tests.hooked_transformer.scenarios import tokens


def fired(model: HookedTransformer, *args: Any, **kwargs: Any) -> list[str]:
    names: list[str] = []
    hooks = [(lambda _: True, lambda activation, hook: names.append(hook.name))]
    model.run_with_hooks(*args, fwd_hooks=hooks, **kwargs)
    return names


@pytest.mark.parametrize("layer", [0, 1, 2, -1, -2, 7])
def test_stop_at_layer_gives_the_residual_stream_and_runs_no_further(model: HookedTransformer, layer: int) -> None:
    _, cache = model.run_with_cache(tokens())
    stop = range(2)[:layer].stop
    name = "blocks.0.hook_resid_pre" if stop == 0 else f"blocks.{stop - 1}.hook_resid_post"
    assert torch.equal(model(tokens(), stop_at_layer=layer), cache[name])
    names = fired(model, tokens(), stop_at_layer=layer)
    assert names == [each for each in cache if each.startswith("hook_") or _layer(each) < stop]


def _layer(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("blocks") else 99


@pytest.mark.parametrize("layer", [0, 1, 2, -1])
def test_start_at_layer_gives_the_rest_of_the_pass(model: HookedTransformer, layer: int) -> None:
    logits, cache = model.run_with_cache(tokens())
    start = range(2)[layer:].start
    residual = cache["blocks.1.hook_resid_post"] if start == 2 else cache[f"blocks.{start}.hook_resid_pre"]
    assert torch.equal(model(residual, start_at_layer=layer), logits)
    names = fired(model, residual, start_at_layer=layer)
    assert names == [each for each in cache if not each.startswith("hook_") and _layer(each) >= start]
    # and nothing of it stays
    assert torch.equal(model(tokens()), logits)
    assert fired(model, tokens()) == list(cache)


def test_one_block_alone(model: HookedTransformer) -> None:
    _, cache = model.run_with_cache(tokens())
    before, after = cache["blocks.1.hook_resid_pre"], cache["blocks.1.hook_resid_post"]
    assert torch.equal(model.blocks[1](before), after)
    assert torch.equal(model(before, start_at_layer=1, stop_at_layer=2), after)
    assert model(before, start_at_layer=1, stop_at_layer=1) is before


def test_gradients_flow_through_a_pass_that_starts_late(model: HookedTransformer) -> None:
    residual = model(tokens(), stop_at_layer=1).detach().requires_grad_()
    model(residual, start_at_layer=1, stop_at_layer=2).sum().backward()
    assert residual.grad is not None
    assert model.W_E.grad is None


def test_a_partial_pass_that_fails_leaves_no_trace(model: HookedTransformer) -> None:
    plain = model(tokens())

    def fail(activation: torch.Tensor, hook: Any) -> None:
        raise RuntimeError("on purpose")

    residual = model(tokens(), stop_at_layer=1)
    for arguments in ({"stop_at_layer": 2}, {"start_at_layer": 1}):
        given = residual if "start_at_layer" in arguments else tokens()
        with pytest.raises(RuntimeError, match="on purpose"):
            model.run_with_hooks(given, fwd_hooks=[("blocks.1.hook_resid_pre", fail)], **arguments)
    assert torch.equal(model(tokens()), plain)


def test_embeddings_as_input(model: HookedTransformer) -> None:
    assert torch.equal(model(model.embed(tokens())), model(tokens()))
    loss = model(model.embed(tokens()), tokens=tokens(), return_type="loss")
    assert torch.equal(loss, model(tokens(), return_type="loss"))


def test_the_embedding_as_transformer_lens_returns_it(model: HookedTransformer) -> None:
    residual, got, shortformer, mask = model.input_to_embed(TEXTS, padding_side="left")
    assert got is not None
    assert torch.equal(got, model.to_tokens(TEXTS, padding_side="left"))
    assert mask is not None
    assert mask.shape == got.shape
    assert shortformer is None
    attended = mask.bool()
    again, nothing = model.get_residual(model.embed(got), 0, attention_mask=mask)
    assert nothing is None
    assert torch.equal(residual[attended], again[attended])
    alone = model.get_residual(model.embed(got), 0, return_shortformer_pos_embed=False)
    assert alone.shape == residual.shape


@pytest.mark.parametrize("make", [KeyValueCache, DynamicCache], ids=["TransformerLens", "HuggingFace"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_decoding_with_a_cache_is_what_hugging_face_computes(kind: str, attention: str, make: Any) -> None:
    plain = make_hf_model(kind, attention)
    expected = [plain(tokens()[:, :4], use_cache=True)]
    model = make_model_of(kind, attention=attention)
    past = make() if make is DynamicCache else make.init_cache(model.cfg, model.cfg.device, 2)
    got = [model(tokens()[:, :4], past_kv_cache=past)]
    for place in (4, 5):
        known = capabilities.past(plain, expected[-1])
        step = {"attention_mask": torch.ones(2, place + 1, dtype=torch.long), "position_ids": torch.tensor([[place]])}
        expected.append(plain(tokens()[:, place : place + 1], **known, use_cache=True, **step))
        got.append(model(tokens()[:, place : place + 1], past_kv_cache=past))
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.equal(ours, theirs.logits)
    assert model.get_pos_offset(past, 2) == 6
    torch.testing.assert_close(torch.cat(got, dim=1), model(tokens()[:, :6]), rtol=1e-4, atol=1e-5)


def test_left_padded_prompts_with_a_cache(model: HookedTransformer) -> None:
    prompt = model.to_tokens(TEXTS, padding_side="left")
    past = KeyValueCache.init_cache(model.cfg, model.cfg.device, 2)
    with model._defaults(None, "left"):
        model(prompt[:, :-1], past_kv_cache=past)
        got = model(prompt[:, -1:], past_kv_cache=past)
        torch.testing.assert_close(got[:, 0], model(prompt)[:, -1], rtol=1e-4, atol=1e-5)


def test_a_frozen_cache_keeps_what_it_has_and_serves_partial_passes(model: HookedTransformer) -> None:
    past = KeyValueCache.init_cache(model.cfg, model.cfg.device, 2)
    model(tokens()[:, :4], past_kv_cache=past)
    past.freeze()
    keys = past.entries[1].past_keys.clone()
    got = model(tokens()[:, 4:], past_kv_cache=past, stop_at_layer=2)
    assert torch.equal(past.entries[1].past_keys, keys)
    assert past.previous_attention_mask.shape == (2, 4)
    torch.testing.assert_close(got, model(tokens(), stop_at_layer=2)[:, 4:], rtol=1e-4, atol=1e-5)


def test_edits_of_keys_and_values_stay_in_the_cache(model: HookedTransformer) -> None:
    past = KeyValueCache.init_cache(model.cfg, model.cfg.device, 2)
    model.run_with_hooks(
        tokens()[:, :4], past_kv_cache=past, fwd_hooks=[("blocks.0.attn.hook_v", lambda v, hook: torch.zeros_like(v))]
    )
    assert not past.entries[0].past_values.any()
    assert past.entries[1].past_values.any()


def test_generation_is_hugging_face_s(kind: str) -> None:
    expected = make_hf_model(kind).generate(tokens(), max_new_tokens=12, do_sample=False, pad_token_id=0)
    got = make_model_of(kind).generate(tokens(), max_new_tokens=12, do_sample=False, verbose=False, stop_at_eos=False)
    assert torch.equal(got, expected)


def test_sampling_is_hugging_face_s_without_its_default_of_50_tokens(model: HookedTransformer) -> None:
    for arguments in ({}, {"top_k": 5}, {"top_p": 0.5}, {"temperature": 0.7}, {"top_k": 5, "top_p": 0.1}):
        torch.manual_seed(0)
        got = model.generate(tokens(), max_new_tokens=8, verbose=False, stop_at_eos=False, **arguments)
        theirs = {"top_k": 0, "top_p": 1.0, "temperature": 1.0} | arguments
        if "top_k" in arguments:
            theirs["top_p"] = 1.0
        torch.manual_seed(0)
        expected = model.hf_model.generate(tokens(), max_new_tokens=8, do_sample=True, pad_token_id=0, **theirs)
        assert torch.equal(got, expected)


def test_hooks_are_active_while_generating(model: HookedTransformer) -> None:
    plain = model.generate(tokens(), max_new_tokens=6, do_sample=False, verbose=False, stop_at_eos=False)
    shapes = []

    def flip(residual: torch.Tensor, hook: Any) -> torch.Tensor:
        shapes.append(residual.shape[1])
        return -residual

    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_post", flip)]):
        edited = model.generate(tokens(), max_new_tokens=6, do_sample=False, verbose=False, stop_at_eos=False)
    assert shapes == [7, 1, 1, 1, 1, 1]
    assert not torch.equal(plain, edited)


def test_the_frequency_penalty_lowers_what_occurred(model: HookedTransformer) -> None:
    torch.manual_seed(0)
    with_penalty = model.generate(
        tokens(), max_new_tokens=20, freq_penalty=1e4, temperature=0.5, verbose=False, stop_at_eos=False
    )
    for row in with_penalty:
        assert len(row.unique()) == len(row) - (7 - len(row[:7].unique()))


def test_generation_ends_at_an_end_token_and_pads_with_it(model: HookedTransformer) -> None:
    arguments: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "verbose": False}
    free = model.generate(tokens()[:1], stop_at_eos=False, **arguments)
    end = int(free[0, 9])
    ended = model.generate(tokens()[:1], eos_token_id=end, **arguments)
    first = 7 + free[0, 7:].tolist().index(end)
    assert ended.tolist() == free[:, : first + 1].tolist()
    assert model.generate(tokens()[:1], eos_token_id=[end, 1], **arguments).tolist() == ended.tolist()


def test_what_generation_returns(model: HookedTransformer, capsys: pytest.CaptureFixture[str]) -> None:
    arguments: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False, "stop_at_eos": False}
    text = model.generate("The mill", verbose=False, **arguments)
    assert isinstance(text, str)
    assert text.startswith("The mill")
    several = model.generate(TEXTS, verbose=False, **arguments)
    assert [each[:3] for each in several] == [each[:3] for each in TEXTS]
    alone = [model.generate(each, verbose=False, **arguments) for each in TEXTS]
    assert several == alone
    ids = model.generate(TEXTS[0], return_type="tokens", verbose=False, **arguments)
    embeddings = model.generate(model.embed(ids), verbose=False, **arguments)
    assert embeddings.shape == (1, ids.shape[1] + 3, model.cfg.d_model)
    assert isinstance(model.generate(ids, return_type="str", verbose=False, **arguments), str)
    model.generate("The mill", verbose=False, streamer=TextStreamer(model.tokenizer), **arguments)
    assert "The mill" in capsys.readouterr().out
    model.generate("The mill", verbose=True, **arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model(tokens(), return_type="probs"), "'logits', 'loss', 'both' or None"),
        (lambda model: model(3.5), "float; it must be"),
        (lambda model: model([1, 2]), "list; it must be"),
        (lambda model: model(tokens(), start_at_layer=1), "not tokens"),
        (lambda model: model(tokens(), shortformer_pos_embed=tokens()), "no such embedding"),
        (lambda model: model(model.embed(tokens()), return_type="loss"), "needs tokens="),
        (lambda model: model.generate(tokens(), return_type="logits"), "'input', 'str', 'tokens' or 'embeds'"),
        (lambda model: model(tokens(), stop_at_layer=1, past_kv_cache=DynamicCache()), "Freeze the cache"),
        (lambda model: model.get_pos_offset(KeyValueCache.init_cache(model.cfg, "cpu", 3), 2), "for 3 sequences"),
    ],
)
def test_wrong_use(tokenizer: Any, call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ForwardArgumentsError, match=message):
        call(make_model_of("gpt2", tokenizer))


def test_no_end_token_is_known() -> None:
    with pytest.raises(ForwardArgumentsError, match="stop_at_eos=False"):
        make_model_of("gpt2").generate(tokens(), verbose=False)


def test_what_is_no_cache() -> None:
    with pytest.raises(KeyValueCacheError, match=r"init_cache\(model.cfg"):
        make_model_of("gpt2")(tokens(), past_kv_cache=[(1, 2)])


def test_none_runs_for_the_hooks_sake(model: HookedTransformer) -> None:
    assert model(tokens(), return_type=None) is None
    assert model.get_pos_offset(None, 2) == 0


def test_embeddings_after_a_cache_are_what_their_tokens_are(model: HookedTransformer) -> None:
    outputs = []
    for second in (tokens()[:, 3:], model.embed(tokens()[:, 3:])):
        cache = DynamicCache()
        model(tokens()[:, :3], past_kv_cache=cache)
        outputs.append(model(second, past_kv_cache=cache))
    assert torch.equal(*outputs)
