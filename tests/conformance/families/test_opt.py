"""OPT as it is published, but for its size; and layers that are left out in training."""

from typing import Any

import pytest
import torch
import transformers

import mishformer_lens
from mishformer_lens.errors import UnknownHookError
from tests.conformance.families.contract import SCORES
from tests.models import D_VOCAB, fill_weights, left_padding, make_tokens
from tests.recording import assert_same, noise_like, recorded


def makes_norms_without_weights() -> bool:
    """Whether the installed release can."""
    fields = {"hidden_size": 8, "ffn_dim": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8}
    try:
        transformers.OPTModel(
            transformers.OPTConfig(**fields, word_embed_proj_dim=8, layer_norm_elementwise_affine=False)
        )
    except AttributeError:
        return False
    return True


WITHOUT_WEIGHTS = makes_norms_without_weights()

# What their configurations say beside sizes. Dropout acts in training alone.
PUBLISHED: dict[str, dict[str, Any]] = {
    "opt-125m": {"do_layer_norm_before": True, "word_embed_proj_dim": 32},
    "opt-350m": {"do_layer_norm_before": False, "word_embed_proj_dim": 16},
}


# Beside what is published: some releases cannot make norms without weights.
CHANGES = [{}, {"enable_bias": False, **({"layer_norm_elementwise_affine": False} if WITHOUT_WEIGHTS else {})}]


def published(name: str, attention: str = "eager", **changes: Any) -> Any:
    """A model of that configuration, of less width and depth."""
    config = transformers.OPTConfig(
        **{
            "hidden_size": 32,
            "ffn_dim": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "vocab_size": D_VOCAB,
            "activation_function": "relu",
            "dropout": 0.1,
            "attention_dropout": 0.0,
            "layerdrop": 0.0,
            "bos_token_id": 2,
            "eos_token_id": 2,
            "pad_token_id": 1,
            "attn_implementation": attention,
            **PUBLISHED[name],
            **changes,
        }
    )
    model = transformers.OPTForCausalLM(config)
    fill_weights(model)
    return model.eval()


def offered() -> tuple[str, ...]:
    variant = mishformer_lens.variants["opt"]
    assert variant is not None
    return tuple(each for each in ("eager", "sdpa") if each in variant.attention)


def observed(instrumentation: Any, attention: str) -> list[str]:
    return [name for name in instrumentation.unflagged_names if attention == "eager" or not name.endswith(SCORES)]


@pytest.mark.parametrize("attention", offered())
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("changes", CHANGES)
def test_published_models_are_huggingface_s(name: str, attention: str, changes: dict[str, Any]) -> None:
    plain, model = published(name, attention, **changes), published(name, attention, **changes)
    instrumentation = mishformer_lens.instrument(model)
    tokens = make_tokens()

    def outputs(one: Any) -> Any:
        with torch.no_grad():
            passes = [one(tokens, output_hidden_states=True), one(tokens, attention_mask=left_padding())]
            written = one.generate(
                tokens, attention_mask=left_padding(), max_new_tokens=6, do_sample=False, eos_token_id=None
            )
        one.zero_grad()
        loss = one(tokens, labels=tokens).loss
        loss.backward()
        return passes, written, loss, {name: parameter.grad for name, parameter in one.named_parameters()}

    expected = outputs(plain)
    assert_same(outputs(model), expected, "idle")
    with recorded(instrumentation.hook_points, observed(instrumentation, attention)) as values:
        assert_same(outputs(model), expected, "hooked")
    assert set(values) == set(observed(instrumentation, attention))
    assert ("ln_final.hook_scale" in instrumentation.hook_points) == (name == "opt-125m")


def test_norms_without_weights_are_made_or_declared_impossible() -> None:
    variant = mishformer_lens.variants["opt"]
    assert variant is not None
    assert WITHOUT_WEIGHTS or "layer_norm_elementwise_affine=False" in variant.unsupported


def test_what_such_a_model_has_not_is_refused_by_name() -> None:
    instrumentation = mishformer_lens.instrument(published("opt-350m"))
    with pytest.raises(UnknownHookError, match="has no hook point"):
        instrumentation["ln_final.hook_normalized"]


def test_projections_stand_before_the_first_hook_point_and_after_the_last() -> None:
    model = published("opt-350m")
    instrumentation, decoder = mishformer_lens.instrument(model), model.model.decoder
    tokens = make_tokens()
    with instrumentation.caching(["hook_embed", "blocks.2.hook_resid_post"]) as cache, torch.no_grad():
        output = model(tokens, output_hidden_states=True)
    with torch.no_grad():
        assert torch.equal(cache["hook_embed"], decoder.project_in(decoder.embed_tokens(tokens)))
        projected = decoder.project_out(cache["blocks.2.hook_resid_post"])
        assert torch.equal(model.lm_head(projected), output.logits)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_layer_that_is_left_out_does_not_fire_and_the_others_do(name: str) -> None:
    plain, model = published(name, layerdrop=0.5).train(), published(name, layerdrop=0.5).train()
    instrumentation = mishformer_lens.instrument(model)
    tokens = make_tokens()

    def step(one: Any, seed: int) -> Any:
        one.zero_grad()
        torch.manual_seed(seed)
        output = one(tokens, labels=tokens, use_cache=False)
        output.loss.backward()
        gradients = {name: parameter.grad for name, parameter in one.named_parameters()}
        return output.loss, output.logits, gradients, torch.get_rng_state()

    entered: list[int] = []
    for index, layer in enumerate(plain.model.decoder.layers):

        def enter(*_: Any, index: int = index) -> None:
            entered.append(index)

        layer.register_forward_pre_hook(enter)
    ran = set()
    for seed in range(6):
        entered.clear()
        expected = step(plain, seed)
        assert_same(step(model, seed), expected, "idle")
        names = observed(instrumentation, "eager")
        with recorded(instrumentation.hook_points, names) as values:
            assert_same(step(model, seed), expected, "hooked")
        fired = {int(name.split(".")[1]) for name in values if name.startswith("blocks.")}
        assert fired == set(entered)
        assert all(len(each) == 1 for each in values.values())
        ran.add(tuple(entered))
    assert len(ran) > 2, "not each pass leaves out the same layers"


def test_an_edit_in_a_layer_that_is_left_out_changes_nothing() -> None:
    model = published("opt-350m", layerdrop=1.1, dropout=0.0).train()
    instrumentation = mishformer_lens.instrument(model)
    expected = model(make_tokens(), use_cache=False).logits
    for name in ("blocks.0.hook_resid_post", "hook_embed"):
        instrumentation[name].add_hook(lambda activation, hook: activation + noise_like(activation))
        same = torch.equal(model(make_tokens(), use_cache=False).logits, expected)
        assert same == name.startswith("blocks.")
        instrumentation[name].remove_hooks()
