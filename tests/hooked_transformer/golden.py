"""Golden values: what TransformerLens 2.15.4's own ``HookedTransformer`` gives in each scenario, thinned out."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.hooked_transformer.scenarios import PROCESSED, SCENARIOS, Values
from tests.models import KINDS

FILE = Path(__file__).parents[1] / "golden" / "hooked_transformer.safetensors"
KEPT = 12
"""How many numbers of each value are kept, besides its mean and the mean of its squares."""


def sample(values: Values) -> Values:
    """Of each value a few numbers spread over it, its mean and its mean square."""
    thinned = {}
    for name, value in values.items():
        flat = value.detach().flatten().float()
        places = torch.linspace(0, flat.numel() - 1, KEPT).round().long()
        thinned[name] = torch.cat([flat[places], flat.mean()[None], flat.square().mean()[None]])
    return thinned


def _key(kind: str, scenario: str, processed: bool) -> str:
    return f"{kind}/{scenario}/{'processed' if processed else 'unprocessed'}/"


def load(kind: str, scenario: str, processed: bool) -> Values:
    """The golden values of one scenario."""
    key = _key(kind, scenario, processed)
    return {name.removeprefix(key): value for name, value in load_file(FILE).items() if name.startswith(key)}


def write(make_reference: Any) -> None:
    """Write the file anew, from a function that makes TransformerLens's own model."""
    values: Values = {}
    for kind in KINDS:
        for scenario, function in SCENARIOS.items():
            for processed in [False, True] if scenario in PROCESSED else [False]:
                thinned = sample(function(make_reference(kind, processed)))
                key = _key(kind, scenario, processed)
                values |= {key + name: value.contiguous() for name, value in thinned.items()}
    FILE.parent.mkdir(exist_ok=True)
    save_file(values, FILE)
