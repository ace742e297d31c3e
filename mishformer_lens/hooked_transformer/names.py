"""TransformerLens's short names of models, and the checkpoints that were published along a training run."""

import functools
import re
from typing import Final

from mishformer_lens.errors import CheckpointNotFoundError
from mishformer_lens.patchers import FAMILIES

_STANFORD: Final = {
    "small": {
        "a": "alias-gpt2-small-x21",
        "b": "battlestar-gpt2-small-x49",
        "c": "caprica-gpt2-small-x81",
        "d": "darkmatter-gpt2-small-x343",
        "e": "expanse-gpt2-small-x777",
    },
    "medium": {
        "a": "arwen-gpt2-medium-x21",
        "b": "beren-gpt2-medium-x49",
        "c": "celebrimbor-gpt2-medium-x81",
        "d": "durin-gpt2-medium-x343",
        "e": "eowyn-gpt2-medium-x777",
    },
}

_ALIASES: Final = {
    "gpt2-small": "gpt2",
    "distillgpt2": "distilgpt2",
    "distill-gpt2": "distilgpt2",
    "distil-gpt2": "distilgpt2",
    "gpt2-xs": "distilgpt2",
    "gpt-neox-20b": "EleutherAI/gpt-neox-20b",
    "gpt-neox": "EleutherAI/gpt-neox-20b",
    "neox": "EleutherAI/gpt-neox-20b",
} | {
    alias: f"stanford-crfm/{name}"
    for size, seeds in _STANFORD.items()
    for letter, name in seeds.items()
    # TransformerLens calls the medium ones gpt2-medium-small-* too.
    for alias in (
        name,
        f"stanford-gpt2-{size}-{letter}",
        f"gpt2-stanford-{size}-{letter}",
        f"gpt2-{'mistral' if size == 'small' else 'medium'}-small-{letter}",
    )
}

# Names of before the authors counted the parameters anew.
_PYTHIA_RENAMED: Final = {
    "19m": "70m",
    "125m": "160m",
    "350m": "410m",
    "800m": "1b",
    "1.3b": "1.4b",
    "2.7b": "2.8b",
    "6.7b": "6.9b",
    "13b": "12b",
}

_PYTHIA = re.compile(r"(?:EleutherAI/)?pythia(?:-([0-9.]+[mb]))?(-.*)?", re.IGNORECASE)

_PYTHIA_STEPS: Final = (0, *(2**exponent for exponent in range(10)), *range(1000, 143001, 1000))
_PYTHIA_V0_STEPS: Final = tuple(range(1000, 143001, 1000))
_STANFORD_STEPS: Final = (
    *range(0, 100, 10),
    *range(100, 2000, 50),
    *range(2000, 20000, 100),
    *range(20000, 400001, 1000),
)


def hugging_face_name(name: str) -> str:
    """HuggingFace's name for a model that TransformerLens has a short name for; any other name as it is."""
    pythia = _PYTHIA.fullmatch(name)
    if pythia:
        size = (pythia[1] or "70m").lower()
        return f"EleutherAI/pythia-{_PYTHIA_RENAMED.get(size, size)}{pythia[2] or ''}"
    return _ALIASES.get(name.lower()) or _of_families().get(name.lower(), name)


@functools.cache
def _of_families() -> dict[str, str]:
    """TransformerLens's short names of all families' models, in lower case, to HuggingFace's."""
    drop_ins = [family.drop_in for family in FAMILIES.values() if family.drop_in is not None]
    by_last_part = {name.rpartition("/")[2].lower(): name for each in drop_ins for name in each.models}
    return by_last_part | {short: name for each in drop_ins for short, name in each.names.items()}


def checkpoint_steps(name: str) -> tuple[int, ...]:
    """The training steps that a model's authors published checkpoints of.

    Raises:
        CheckpointNotFoundError: none are known.
    """
    name = hugging_face_name(name)
    if name.startswith("stanford-crfm/"):
        return _STANFORD_STEPS
    if name.startswith("EleutherAI/pythia"):
        return _PYTHIA_V0_STEPS if "v0" in name else _PYTHIA_STEPS
    raise CheckpointNotFoundError(
        f"{name} has no known checkpoints along its training. Known are those of EleutherAI/pythia-* and "
        "stanford-crfm/*; for another model pass revision=, as HuggingFace's from_pretrained takes it."
    )


def checkpoint_revision(name: str, index: int | None, value: int | None) -> tuple[int, str]:
    """The training step and HuggingFace revision of a checkpoint, by its place in the list or by its step.

    Raises:
        CheckpointNotFoundError: there is no such checkpoint.
    """
    steps = checkpoint_steps(name)
    if index is not None:
        if not -len(steps) <= index < len(steps):
            raise CheckpointNotFoundError(f"checkpoint_index is {index}; {name} has {len(steps)} checkpoints.")
        value = steps[index]
    if value not in steps:
        nearest = min(steps, key=lambda step: abs(step - (value or 0)))
        raise CheckpointNotFoundError(f"{name} has no checkpoint of step {value}; the nearest is of step {nearest}.")
    prefix = "checkpoint-" if hugging_face_name(name).startswith("stanford-crfm/") else "step"
    return value, f"{prefix}{value}"
