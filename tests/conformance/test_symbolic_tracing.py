"""Parts of a hooked model that torch.fx traces."""

from typing import Any

import pytest
import torch
from torch import fx, nn

import mishformer_lens
from mishformer_lens.errors import TracedHookError
from tests.models import BATCH, D_HEAD, DEVICE, N_HEADS, POS, Case, make_model
from tests.recording import assert_same

RESULT = "blocks.0.attn.hook_result"


def part(model: Any, name: str) -> Any:
    """A part of the first block, by TransformerLens's name."""
    return mishformer_lens.instrument(model).place(0, name).find()


class OutputProjection(nn.Module):
    """What an attention does with its heads' ``z``: no attention as a whole is one that torch.fx traces."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention = attention
        self.projection = attention.c_proj if hasattr(attention, "c_proj") else attention.dense

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.attention.head_results.project(self.projection, z)  # type: ignore[no-any-return]


def test_what_heads_add_is_looked_at_while_torch_fx_traces(kind: str) -> None:
    model = make_model(Case(kind))
    seen: list[object] = []
    mishformer_lens.instrument(model)[RESULT].add_observer(lambda tensor, _: seen.append(tensor))
    projection = OutputProjection(part(model, "attn"))
    traced = fx.symbolic_trace(projection)
    assert len(seen) == 1
    z = torch.randn(BATCH, POS, N_HEADS * D_HEAD, device=DEVICE)
    assert_same(traced(z), projection.projection(z))


def test_what_is_looked_at_in_a_part_that_torch_fx_traces_is_what_it_does(kind: str) -> None:
    plain, model = make_model(Case(kind)), make_model(Case(kind))
    seen: list[object] = []
    point = mishformer_lens.instrument(model)["blocks.0.mlp.hook_pre"]
    point.add_observer(lambda tensor, _: seen.append(tensor))
    traced = fx.symbolic_trace(part(model, "mlp"))
    assert len(seen) == 1
    x = torch.randn(BATCH, POS, N_HEADS * D_HEAD, device=DEVICE)
    assert_same(traced(x), part(plain, "mlp")(x))


@pytest.mark.parametrize("name", [RESULT, "blocks.0.mlp.hook_pre", "blocks.0.ln1.hook_normalized"])
def test_a_hook_that_may_edit_is_refused_while_torch_fx_traces(kind: str, name: str) -> None:
    model = make_model(Case(kind))
    point = mishformer_lens.instrument(model)[name]
    point.add_hook(lambda activation, hook: None)
    module = OutputProjection(part(model, "attn")) if name == RESULT else part(model, name.split(".")[2])
    with pytest.raises(TracedHookError, match=rf"{name} has a hook, .*torch.fx traces .* Take the hook off"):
        fx.symbolic_trace(module)
    point.remove_hooks()
    if name != RESULT:  # without hooks an attention has nothing that would project
        fx.symbolic_trace(module)
