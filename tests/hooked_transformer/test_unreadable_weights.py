"""Weights that are quantized, packed, offloaded or inside a wrapper: an error by name, never bytes or placeholders.

The libraries that do so are not needed here: stand-ins keep weights as they do.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from accelerate.utils import align_module_device
from torch import nn

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import MishformerLensError, UnreadableWeightError
from mishformer_lens.hooked_transformer.transformer_lens_compat import KeyValueCache
from tests.hooked_transformer.making import TEXTS, make_hf_model, make_model_of
from tests.hooked_transformer.scenarios import tokens
from tests.hooked_transformer.test_live_models import blocks_of


class PackedLinear(nn.Linear):
    """As bitsandbytes in 4 bits: a Linear whose weight is a column of bytes, two numbers in each."""

    def __init__(self, matrix: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(matrix.shape[0], matrix.shape[1], bias=bias is not None)
        self.scale = matrix.abs().max() / 7
        numbers = (matrix.T / self.scale).round().clamp(-7, 7).to(torch.int16) + 8
        packed = (numbers.flatten()[::2] * 16 + numbers.flatten()[1::2]).to(torch.uint8)
        self.weight = nn.Parameter(packed[:, None], requires_grad=False)
        if bias is not None:
            self.bias = nn.Parameter(bias.clone())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        packed = self.weight.flatten().to(torch.int16)
        numbers = torch.stack([packed // 16, packed % 16], dim=-1).flatten().view(self.out_features, self.in_features)
        weight = (numbers - 8).to(inputs.dtype) * self.scale
        return nn.functional.linear(inputs, weight, self.bias)


class BytesLinear(nn.Linear):
    """As bitsandbytes in 8 bits: a Linear whose weight has the right shape, of whole numbers."""

    def __init__(self, matrix: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(matrix.shape[0], matrix.shape[1], bias=bias is not None)
        self.scale = matrix.abs().max() / 127
        self.weight = nn.Parameter((matrix.T / self.scale).round().to(torch.int8), requires_grad=False)
        if bias is not None:
            self.bias = nn.Parameter(bias.clone())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(inputs, self.weight.to(inputs.dtype) * self.scale, self.bias)


class StandIn(torch.Tensor):
    """As torchao: a tensor that says it is of floats, and holds whole numbers and a scale."""

    @staticmethod
    def __new__(cls: Any, weight: torch.Tensor) -> "StandIn":
        made: StandIn = torch.Tensor._make_wrapper_subclass(cls, weight.shape, dtype=weight.dtype)
        made.scale = weight.abs().max() / 127
        made.numbers = (weight / made.scale).round().to(torch.int8)
        return made

    scale: torch.Tensor
    numbers: torch.Tensor

    def dequantized(self) -> torch.Tensor:
        return self.numbers.to(self.dtype) * self.scale

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override] # torch's own is a placeholder
        if func is torch.ops.aten.detach.default:
            return args[0]
        plain = [each.dequantized() if isinstance(each, StandIn) else each for each in args]
        return func(*plain, **(kwargs or {}))


class StandInLinear(nn.Linear):
    def __init__(self, matrix: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(matrix.shape[0], matrix.shape[1], bias=bias is not None)
        self.weight = nn.Parameter(StandIn(matrix.T.contiguous()), requires_grad=False)
        if bias is not None:
            self.bias = nn.Parameter(bias.clone())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        weight: Any = self.weight
        return nn.functional.linear(inputs, weight.dequantized(), self.bias)


class NoLinear(nn.Module):
    """As hqq: no Linear at all, and its weight under another name."""

    def __init__(self, matrix: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.W_q = nn.Parameter((matrix.T * 100).round().to(torch.int8), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.clone())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(inputs, self.W_q.to(inputs.dtype) / 100, self.bias)


class Adapted(nn.Module):
    """As peft: the projection, and beside it a small one. Its weight alone is not what is computed."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    @property
    def weight(self) -> Any:
        return self.base.weight

    @property
    def bias(self) -> Any:
        return self.base.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.base(inputs)
        return projected * 1.5


QUANTIZED = (PackedLinear, BytesLinear, StandInLinear, NoLinear)
PROJECTIONS = {
    "c_attn": "W_Q",
    "query_key_value": "W_Q",
    "attn.c_proj": "W_O",
    "attention.dense": "W_O",
    "c_fc": "W_in",
    "dense_h_to_4h": "W_in",
    "mlp.c_proj": "W_out",
    "dense_4h_to_h": "W_out",
}


def replace_projections(hf_model: Any, make: Any) -> Any:
    """Put something else in the place of all projections of the blocks."""
    for block in blocks_of(hf_model):
        for name in PROJECTIONS:
            try:
                module: Any = block.get_submodule(name if "." in name else _path(block, name))
            except AttributeError:
                continue
            path = name if "." in name else _path(block, name)
            block.set_submodule(path, make(module))
    return hf_model


def _path(block: nn.Module, name: str) -> str:
    return next((path for path, _ in block.named_modules() if path.endswith(f".{name}")), name)


def quantize(kind: str, make: Any) -> Any:
    def quantized(module: Any) -> nn.Module:
        matrix = module.weight.detach().T if isinstance(module, nn.Linear) else module.weight.detach()
        made: nn.Module = make(matrix, module.bias.detach())
        return made

    return replace_projections(make_hf_model(kind), quantized)


@pytest.mark.parametrize("make", QUANTIZED)
def test_a_quantized_model_runs_and_refuses_to_show_its_matrices(kind: str, make: Any) -> None:
    hf_model = quantize(kind, make)
    expected = hf_model(tokens()).logits
    model = HookedTransformer(hf_model)
    assert torch.equal(model(tokens()), expected)
    assert (model.cfg.n_layers, model.cfg.n_heads, model.cfg.d_mlp, model.cfg.dtype) == (2, 4, 48, torch.float32)
    logits, cache = model.run_with_cache(tokens())
    assert torch.equal(logits, expected)
    assert cache["blocks.0.attn.hook_q"].shape == (2, 7, 4, 8)
    assert model.generate(tokens(), max_new_tokens=2, verbose=False, do_sample=False, stop_at_eos=False).shape == (2, 9)
    for part, names in (("attn", ("W_Q", "W_K", "W_V", "W_O")), ("mlp", ("W_in", "W_out"))):
        component = getattr(model.blocks[1], part)
        assert "not readable" in repr(component)
        for name in names:
            with pytest.raises(UnreadableWeightError, match=rf"blocks\.1\.{part}\.{name} cannot be looked at"):
                getattr(component, name)
            with pytest.raises(UnreadableWeightError, match="cannot be"):
                setattr(component, name, torch.zeros(3))
    for call in (
        lambda: model.W_Q,
        lambda: model.OV,
        lambda: model.tl_parameters(),
        lambda: model.to_transformer_lens_state_dict(),
        lambda: model.process_weights_(),
        lambda: model.blocks[0].attn(*3 * (torch.zeros(1, 2, 32),)),
    ):
        with pytest.raises(UnreadableWeightError):
            call()
    # What is in the open can be read, and the refusals left the model as it was.
    assert model.W_E.shape == (300, 32)
    assert model.W_U.shape == (32, 300)
    assert model.ln_final.w.shape == (32,)
    assert torch.equal(model(tokens()), expected)


def test_a_weight_inside_a_wrapper_is_not_shown_for_what_the_wrapper_computes(kind: str) -> None:
    model = HookedTransformer(replace_projections(make_hf_model(kind), Adapted))
    for read in (lambda: model.blocks[0].attn.W_O, lambda: model.blocks[0].mlp.W_in, lambda: model.b_Q):
        with pytest.raises(UnreadableWeightError, match=r"Adapted stands in its place.*merge_and_unload"):
            read()
    assert model.cfg.d_mlp == 48


def test_a_parametrized_weight_is_shown_and_not_written_to(kind: str) -> None:
    model = make_model_of(kind)

    class Doubled(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * 2

    before = model.blocks[0].mlp.W_in.detach().clone()
    nn.utils.parametrize.register_parametrization(model.blocks[0].mlp.input, "weight", Doubled())
    assert torch.equal(model.blocks[0].mlp.W_in, before * 2)
    with pytest.raises(UnreadableWeightError, match=r"blocks\.0\.mlp\.W_in cannot be assigned"):
        model.blocks[0].mlp.W_in = before
    assert torch.equal(model.blocks[0].mlp.W_in, before * 2)


def test_the_error_can_be_caught_as_all_others() -> None:
    model = HookedTransformer(quantize("gpt2", PackedLinear))
    with pytest.raises(MishformerLensError, match=r"dequantize"):
        _ = model.W_in


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_an_offloaded_model(kind: str, where: str, tokenizer: Any, tmp_path: Path) -> None:
    expected = make_hf_model(kind)
    hf_model = make_hf_model(kind)
    if where == "memory":
        cpu_offload(hf_model, execution_device=torch.device("cpu"))
    else:
        disk_offload(hf_model, str(tmp_path), execution_device=torch.device("cpu"))
    assert hf_model.get_input_embeddings().weight.device.type == "meta"
    model = HookedTransformer(hf_model, tokenizer)
    assert model.cfg.device == torch.device("cpu")
    assert model.cfg.d_vocab == 300
    assert model.to_tokens(TEXTS).device == torch.device("cpu")
    assert torch.equal(model(tokens()), expected(tokens()).logits)
    _, cache = model.run_with_cache(tokens())
    assert cache["blocks.1.hook_resid_post"].device == torch.device("cpu")
    past = KeyValueCache.init_cache(model.cfg, model.cfg.device, 2)
    torch.testing.assert_close(model(tokens(), past_kv_cache=past), expected(tokens()).logits, rtol=1e-4, atol=1e-5)
    for read in (lambda: model.W_E, lambda: model.W_U, lambda: model.blocks[0].attn.W_Q, lambda: model.ln_final.w):
        with pytest.raises(UnreadableWeightError, match=r"is offloaded.*align_module_device"):
            read()
    with pytest.raises(UnreadableWeightError, match="is offloaded"):
        model.blocks[0].mlp.W_in = torch.zeros(32, 48)
    with align_module_device(model.embed.module):
        assert torch.equal(model.W_E, expected.get_input_embeddings().weight)


def test_a_model_that_is_nowhere_says_so(kind: str) -> None:
    """Without accelerate's hooks nothing would fetch the weights: meta is where it is."""
    model = HookedTransformer(make_hf_model(kind).to("meta"))
    assert model.cfg.device == torch.device("meta")
    assert model.W_E.device.type == "meta"
