"""What people do with a HuggingFace model. Each scenario is run on a plain model and on a hooked one."""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from mishformer_lens.errors import CheckpointingWarning
from tests import capabilities
from tests.models import BATCH, D_MODEL, DEVICE, KINDS, POS, left_padding, make_tokens, right_padding

Run = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One use of a model.

    Attributes:
        run: takes a model and gives nested tensors, all of which are compared.
        head: which head the model has.
        config: changes to the tiny model's configuration.
        kinds: the kinds of model that can do it.
        needs: names of arguments that the model's forward must take.
        rope: a type of rotary embedding to configure.
        static_cache: the model must be able to generate with a cache of fixed size.
        only_float32: one dtype is enough, because nothing in it depends on the dtype.
    """

    run: Run
    head: str = "causal"
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    kinds: tuple[str, ...] = KINDS
    needs: tuple[str, ...] = ()
    rope: str | None = None
    static_cache: bool = False
    only_float32: bool = False


NEOX = ("gpt_neox", "gpt_neox_sequential")
GPT2 = ("gpt2",)
DROPOUT = {
    "gpt2": {"attn_pdrop": 0.2, "embd_pdrop": 0.2, "resid_pdrop": 0.2},
    "gpt_neox": {"attention_dropout": 0.2, "hidden_dropout": 0.2},
}


@torch.no_grad()
def forward(model: Any) -> Any:
    return model(make_tokens())


@torch.no_grad()
def everything(model: Any) -> Any:
    tokens = make_tokens()
    return model(tokens, labels=tokens, output_hidden_states=True, use_cache=True)


@torch.no_grad()
def everything_with_a_mask(model: Any) -> Any:
    tokens = make_tokens()
    mask = torch.ones_like(tokens)
    return model(tokens, attention_mask=mask, labels=tokens, output_hidden_states=True, use_cache=True)


@torch.no_grad()
def attentions(model: Any) -> Any:
    return model(make_tokens(), output_attentions=True)


def gradients(model: Any, **arguments: Any) -> Any:
    """Loss and the gradients of all parameters and of the input embeddings."""
    model.zero_grad()
    tokens = make_tokens()
    embeddings = model.get_input_embeddings()(tokens).detach().requires_grad_()
    output = model(inputs_embeds=embeddings, labels=tokens, **arguments)
    output.loss.backward()
    return {
        "loss": output.loss,
        "inputs": embeddings.grad,
        **{name: parameter.grad for name, parameter in model.named_parameters()},
    }


def token_gradients(model: Any) -> Any:
    """As :func:`gradients`, from token ids: the embedding has a gradient, too."""
    model.zero_grad()
    tokens = make_tokens()
    model(tokens, labels=tokens).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def training(model: Any) -> Any:
    """A step with dropout; the state of the random generator after it is compared, too."""
    model.train()
    torch.manual_seed(3)
    return gradients(model), torch.get_rng_state()


def checkpointed(use_reentrant: bool) -> Run:
    """A training step with dropout that recomputes each block in the backward pass."""

    def run(model: Any) -> Any:
        model.train()
        capabilities.enable_checkpointing(model, use_reentrant=use_reentrant)
        torch.manual_seed(3)
        with warnings.catch_warnings():
            # Said of blocks with hooks; tests/conformance/test_checkpointing.py is about it.
            warnings.simplefilter("ignore", CheckpointingWarning)
            return gradients(model, use_cache=False), torch.get_rng_state()

    return run


def generate(
    pos: int = POS, seed: int | None = None, mask: Callable[..., torch.Tensor] | None = None, **arguments: Any
) -> Run:
    """Generate tokens, and return the scores, too."""

    def run(model: Any) -> Any:
        tokens = make_tokens(pos=pos)
        if seed is not None:
            torch.manual_seed(seed)
        output = model.generate(
            tokens,
            attention_mask=mask(pos=pos) if mask else torch.ones_like(tokens),
            return_dict_in_generate=True,
            output_scores=True,
            **{"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0, **arguments},
        )
        assert output.sequences.shape == (BATCH, pos + arguments.get("max_new_tokens", 20))
        return {"sequences": output.sequences, "scores": output.scores}

    return run


@torch.no_grad()
def prefill_then_decode(model: Any) -> Any:
    tokens = make_tokens()
    first = model(tokens[:, :4], use_cache=True)
    # A cache object is changed by the next pass.
    kept = copy.deepcopy(capabilities.key_value_cache(model, first))
    second = model(tokens[:, 4:], **capabilities.past(model, first), use_cache=True)
    third = model(tokens[:, :1], **capabilities.past(model, second), use_cache=True)
    return first.logits, kept, second.logits, third.logits, capabilities.key_value_cache(model, third)


def with_mask(mask: Callable[[], torch.Tensor]) -> Run:
    @torch.no_grad()
    def run(model: Any) -> Any:
        tokens = make_tokens()
        return model(tokens, attention_mask=mask(), labels=tokens, output_hidden_states=True)

    return run


@torch.no_grad()
def cached_with_padding(model: Any) -> Any:
    tokens, mask = make_tokens(), left_padding()
    first = model(tokens[:, :5], attention_mask=mask[:, :5], use_cache=True)
    return first.logits, model(tokens[:, 5:], attention_mask=mask, **capabilities.past(model, first))


@torch.no_grad()
def embeddings(model: Any) -> Any:
    return model(inputs_embeds=model.get_input_embeddings()(make_tokens()) * 1.5)


@torch.no_grad()
def positions(model: Any) -> Any:
    return model(make_tokens(), position_ids=torch.arange(POS, device=DEVICE).flip(0)[None].expand(BATCH, -1))


@torch.no_grad()
def as_tuple(model: Any) -> Any:
    output = model(make_tokens(), return_dict=False, output_hidden_states=True)
    assert isinstance(output, tuple)
    return output


@torch.no_grad()
def head_mask(model: Any) -> Any:
    mask = torch.ones(2, 4, device=DEVICE, dtype=next(model.parameters()).dtype)
    mask[0, 1], mask[1, 3] = 0.0, 0.5
    return model(make_tokens(), head_mask=mask, output_attentions=True)


def autocast(model: Any) -> Any:
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        return gradients(model)


@torch.no_grad()
def inference_mode(model: Any) -> Any:
    with torch.inference_mode():
        return model(make_tokens()).logits.clone()


@torch.no_grad()
def token_types(model: Any) -> Any:
    return model(make_tokens(), token_type_ids=make_tokens() % 2)


@torch.no_grad()
def cross_attention(model: Any) -> Any:
    steps = torch.arange(BATCH * 5 * D_MODEL, dtype=torch.float64, device=DEVICE)
    encoded = torch.sin(steps).reshape(BATCH, 5, D_MODEL).to(next(model.parameters()).dtype)
    tokens = make_tokens()
    return model(tokens, encoder_hidden_states=encoded, labels=tokens, output_hidden_states=True, use_cache=True)


@torch.no_grad()
def double_heads(model: Any) -> Any:
    tokens = make_tokens()[:, None].expand(-1, 2, -1).contiguous()
    choices = torch.zeros(BATCH, dtype=torch.long, device=DEVICE)
    last = torch.full((BATCH, 2), POS - 1, device=DEVICE)
    return model(tokens, mc_token_ids=last, mc_labels=choices, labels=tokens)


def classify(model: Any) -> Any:
    model.zero_grad()
    output = model(make_tokens(), labels=torch.arange(BATCH, device=DEVICE))
    output.loss.backward()
    return output, {name: parameter.grad for name, parameter in model.named_parameters()}


@torch.no_grad()
def classify_tokens(model: Any) -> Any:
    return model(make_tokens(), labels=make_tokens() % 3)


@torch.no_grad()
def answer(model: Any) -> Any:
    first = torch.zeros(BATCH, dtype=torch.long, device=DEVICE)
    return model(make_tokens(), start_positions=first, end_positions=first + 2)


@torch.no_grad()
def long_text(model: Any) -> Any:
    """More positions than the model was configured for, where dynamic rotary embeddings begin to act."""
    return model(make_tokens(batch=1, pos=40)), model(make_tokens())


@torch.no_grad()
def one_token(model: Any) -> Any:
    return model(make_tokens(batch=1, pos=1), use_cache=True)


SCENARIOS: dict[str, Scenario] = {
    "forward": Scenario(forward),
    "loss, hidden states and cache": Scenario(everything),
    "attentions": Scenario(attentions),
    "gradients": Scenario(gradients),
    "gradients from tokens": Scenario(token_gradients),
    "greedy generation": Scenario(generate()),
    "sampled generation": Scenario(generate(do_sample=True, seed=5, temperature=0.7, top_k=20), only_float32=True),
    "beam generation": Scenario(generate(num_beams=3, max_new_tokens=8), only_float32=True),
    "generation without a cache": Scenario(generate(use_cache=False, max_new_tokens=6), only_float32=True),
    "generation with a static cache": Scenario(
        generate(cache_implementation="static", max_new_tokens=6), static_cache=True, only_float32=True
    ),
    "generation with left padding": Scenario(generate(mask=left_padding, max_new_tokens=8), only_float32=True),
    "prefill, then decode": Scenario(prefill_then_decode),
    "left padding": Scenario(with_mask(left_padding)),
    "right padding": Scenario(with_mask(right_padding)),
    "left padding and a cache": Scenario(cached_with_padding),
    "one token": Scenario(one_token, only_float32=True),
    "input embeddings": Scenario(embeddings),
    "explicit positions": Scenario(positions),
    "tuple output": Scenario(as_tuple, only_float32=True),
    "head mask": Scenario(head_mask, needs=("head_mask",)),
    "autocast": Scenario(autocast, only_float32=True),
    "inference mode": Scenario(inference_mode, only_float32=True),
    "training with dropout, GPT-2": Scenario(training, config=DROPOUT["gpt2"], kinds=GPT2),
    "training with dropout, GPT-NeoX": Scenario(training, config=DROPOUT["gpt_neox"], kinds=NEOX),
    **{
        f"checkpointing, {label}, {family}": Scenario(
            checkpointed(reentrant), config=DROPOUT[family], kinds=kinds, only_float32=True
        )
        for label, reentrant in (("reentrant", True), ("not reentrant", False))
        for family, kinds in (("gpt2", GPT2), ("gpt_neox", NEOX))
    },
    "base model": Scenario(forward, head="base", only_float32=True),
    "sequence classification": Scenario(classify, head="sequence classification"),
    "token classification": Scenario(classify_tokens, head="token classification", only_float32=True),
    "question answering": Scenario(answer, head="question answering", only_float32=True),
    "double heads": Scenario(double_heads, head="double heads", kinds=GPT2, config={"num_labels": 1}),
    "token types": Scenario(token_types, kinds=GPT2, only_float32=True),
    "cross attention": Scenario(cross_attention, kinds=GPT2, config={"add_cross_attention": True}),
    # With a mask: some releases need one here, which their variants declare.
    "reordered and upcast attention": Scenario(
        everything_with_a_mask, kinds=GPT2, config={"reorder_and_upcast_attn": True}
    ),
    "scaling by inverse layer": Scenario(
        everything, kinds=GPT2, config={"scale_attn_by_inverse_layer_idx": True}, only_float32=True
    ),
    "no scaling": Scenario(everything, kinds=GPT2, config={"scale_attn_weights": False}, only_float32=True),
    "a quarter rotated": Scenario(everything, kinds=NEOX, config={"rotary_pct": 0.25}, only_float32=True),
    "all rotated": Scenario(everything, kinds=NEOX, config={"rotary_pct": 1.0}, only_float32=True),
    "linear RoPE": Scenario(everything, kinds=NEOX, rope="linear", only_float32=True),
    "dynamic RoPE": Scenario(
        long_text, kinds=NEOX, rope="dynamic", config={"max_position_embeddings": 16}, only_float32=True
    ),
    "no attention bias": Scenario(everything, kinds=NEOX, config={"attention_bias": False}, only_float32=True),
    "another activation": Scenario(
        everything, config={"activation_function": "relu", "hidden_act": "relu"}, only_float32=True
    ),
}
