"""What the package does where TransformerLens is not installed. The session `minimal` runs these."""

import importlib.util
import json
import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import mishformer_lens
from mishformer_lens.errors import MishformerLensError, TransformerLensNotInstalledError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformer_lens") is not None,
    reason="TransformerLens is installed here; the session minimal has an environment without it",
)


def make_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).eval()


def test_hooks_are_added_act_and_go() -> None:
    model, tokens = make_model(), torch.tensor([[1, 2, 3]])
    plain = model(tokens).logits
    gradients: list[torch.Tensor] = []
    with mishformer_lens.instrument(model) as hooked:
        with hooked.caching() as cache:
            assert torch.equal(model(tokens).logits, plain)
        assert cache["blocks.1.attn.hook_z"].shape == (1, 3, 2, 4)
        point = hooked["blocks.0.hook_resid_post"]
        point.add_hook(lambda activation, hook: activation.flip(-1))
        point.add_hook(lambda gradient, hook: gradients.append(gradient), dir="bwd")
        assert not torch.equal(model(tokens).logits, plain)
        model(tokens, labels=tokens).loss.backward()
        assert [gradient.shape for gradient in gradients] == [(1, 3, 8)]
        point.remove_hooks("both")
        assert torch.equal(model(tokens).logits, plain)


def test_the_drop_in_is_refused_with_what_to_install() -> None:
    with pytest.raises(TransformerLensNotInstalledError, match=r"mishformer-lens\[transformer-lens\]") as refusal:
        _ = mishformer_lens.HookedTransformer
    assert isinstance(refusal.value, ImportError)
    assert isinstance(refusal.value, MishformerLensError)


def test_doctor_says_what_is_there() -> None:
    command = [sys.executable, "-m", "mishformer_lens.cli", "doctor", "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["packages"]["transformer-lens"] is None
