"""Golden activations: what TransformerLens 2.15.4's own models compute, plain and after an edit of each hook point.

Each activation is kept as a few projections on fixed directions: an error anywhere in it moves all of them.
"""

import functools
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tests.conformance.contract import contract, is_split_input, unflagged
from tests.models import KINDS, make_tokens
from tests.recording import noise_like

FILE = Path(__file__).parents[1] / "golden" / "activations.safetensors"
DIRECTIONS = 4
HIDDEN = -1e4
"""Scores below are those that a mask hides."""
UNEDITED = "unedited"

FLAGS = {
    "hook_attn_in": "set_use_attn_in",
    "hook_q_input": "set_use_split_qkv_input",
    "hook_k_input": "set_use_split_qkv_input",
    "hook_v_input": "set_use_split_qkv_input",
    "hook_result": "set_use_attn_result",
    "hook_mlp_in": "set_use_hook_mlp_in",
}
"""What sets the flag without which TransformerLens does not compute a hook point."""

Run = Callable[[str, str], dict[str, torch.Tensor]]
"""From a kind of model and the hook point to edit (or UNEDITED) to every activation and the logits."""


def edit(activation: torch.Tensor, hook: Any) -> torch.Tensor:
    """The edit: something added to every entry, and a divisor multiplied by something near one."""
    if hook.name.endswith("hook_scale"):
        return activation * (1 + noise_like(activation))
    return activation + noise_like(activation)


def names(kind: str, edited: str) -> list[str]:
    """What is compared for an edit: all that fires without a flag, and the logits.

    Without the first layer norms where an input of the attention is edited: TransformerLens's flag makes those of all
    blocks work on a copy for each head.
    """
    per_head = is_split_input(edited) or edited.endswith("hook_attn_in")
    return [name for name in unflagged(kind) if not (per_head and ".ln1." in name)] + ["logits"]


def edits(kind: str) -> list[str]:
    """Every run of a kind of model."""
    return [UNEDITED, *contract(kind)]


def project(name: str, activation: torch.Tensor) -> torch.Tensor:
    """``[DIRECTIONS]``: the activation along fixed directions, without what the mask hides."""
    values = activation.detach().double().cpu()
    if name.endswith("hook_attn_scores"):
        # TransformerLens writes -inf there, HuggingFace the smallest number of the dtype.
        values = values.where(values > HIDDEN, 0.0)
    random = np.random.RandomState(zlib.crc32(name.encode()))
    directions = torch.from_numpy(random.standard_normal((DIRECTIONS, values.numel())))
    projected: torch.Tensor = (directions @ values.flatten() / values.numel() ** 0.5).float()
    return projected


def rows(run: Run, kind: str, edited: str) -> torch.Tensor:
    """``[names, DIRECTIONS]``: everything that is compared for one edit."""
    values = run(kind, edited)
    return torch.stack([project(name, values[name]) for name in names(kind, edited)])


def write(run: Run) -> None:
    """Write the file anew."""
    FILE.parent.mkdir(exist_ok=True)
    save_file({f"{kind}/{edited}": rows(run, kind, edited) for kind in KINDS for edited in edits(kind)}, FILE)


@functools.cache
def _file() -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(FILE)
    return tensors


def load(kind: str, edited: str) -> dict[str, torch.Tensor]:
    """Name to golden projections."""
    return dict(zip(names(kind, edited), _file()[f"{kind}/{edited}"], strict=True))


def reference_run(make_reference: Callable[[str], Any]) -> Run:
    """A run of TransformerLens's own model, with the flag that the edited hook point needs."""
    model_of = functools.cache(make_reference)

    def run(kind: str, edited: str) -> dict[str, torch.Tensor]:
        model = model_of(kind)
        setter = FLAGS.get(edited.rpartition(".")[2])
        if setter:
            getattr(model, setter)(True)
        values: dict[str, torch.Tensor] = {}

        def record(activation: torch.Tensor, hook: Any) -> None:
            values.setdefault(hook.name, activation.clone())

        hooks: list[Any] = [(name, record) for name in names(kind, edited) if name != "logits"]
        if edited != UNEDITED:
            hooks.append((edited, edit))
        with torch.no_grad():
            values["logits"] = model.run_with_hooks(make_tokens().cpu(), fwd_hooks=hooks)
        if setter:
            getattr(model, setter)(False)
        return values

    return run


def compared(
    values: dict[str, torch.Tensor], kind: str, edited: str
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Name, found projections and golden projections of everything in ``values`` that the file has."""
    golden = load(kind, edited)
    for name, activation in values.items():
        if name in golden:
            yield name, project(name, activation), golden[name]
