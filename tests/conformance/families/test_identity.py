"""Idle and observed, a hooked model computes exactly what a plain one computes, in every family."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

import mishformer_lens
from tests import capabilities
from tests.conformance.families.contract import contract, leaves_a_kernel
from tests.models import BATCH, POS, Case, left_padding, make_model, make_tokens
from tests.recording import assert_same

LONG = 12
"""More positions than any kind's sliding window has."""


def everything(model: Any) -> dict[str, Any]:
    """What must not differ: logits, with and without padding, gradients, generated tokens."""
    model.zero_grad()
    tokens = make_tokens(pos=LONG)
    output = model(tokens, labels=tokens, output_hidden_states=True)
    output.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        padded = model(make_tokens(), attention_mask=left_padding(), use_cache=False).logits
        generated = model.generate(
            make_tokens(),
            attention_mask=left_padding(),
            max_new_tokens=6,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
        )
    assert generated.sequences.shape == (BATCH, POS + 6)
    return {
        "loss": output.loss.detach(),
        "logits": output.logits.detach(),
        "hidden states": [each.detach() for each in output.hidden_states],
        "gradients": gradients,
        "padded": padded,
        "generated": generated.sequences,
        "scores": generated.scores,
    }


@contextlib.contextmanager
def observed(instrumentation: mishformer_lens.Instrumentation, case: Case) -> Iterator[set[str]]:
    """Observe all that leaves the layers' kernels alone; yields the names of what was seen."""
    names = [name for name in contract(case.kind) if not leaves_a_kernel(name, case)]
    seen: set[str] = set()
    with instrumentation.observing(dict.fromkeys(names, lambda activation, hook: seen.add(hook.name))):
        yield seen
    assert seen == set(names)


def test_idle_and_observed(case: Case) -> None:
    plain, model = make_model(case), make_model(case)
    instrumentation = mishformer_lens.instrument(model)
    expected = everything(plain)
    assert_same(everything(model), expected, "idle")
    with observed(instrumentation, case):
        assert_same(everything(model), expected, "observed")
    assert_same(everything(model), expected, "afterwards")
    instrumentation.remove()
    assert all(type(one) is type(other) for one, other in zip(plain.modules(), model.modules(), strict=True))


def test_training_with_checkpointing(kind: str) -> None:
    plain, model = make_model(Case(kind)).train(), make_model(Case(kind)).train()
    instrumentation = mishformer_lens.instrument(model)
    gradients = []
    for each in (plain, model):
        capabilities.enable_checkpointing(each, use_reentrant=False)
        each(make_tokens(), labels=make_tokens(), use_cache=False).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in each.named_parameters()})
    assert_same(gradients[1], gradients[0])
    assert instrumentation.active
