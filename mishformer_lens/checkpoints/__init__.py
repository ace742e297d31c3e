"""The small checkpoint that ships with the package, so that the demo runs without a download."""

from pathlib import Path
from typing import Final

DEMO_TEXT: Final = (
    "Velmira Tosgrath carried a copper lantern to the mill. Ordan Pelwick was waiting at the mill with a blue rope. "
    "Velmira Tosgrath gave the copper lantern to Ordan Pelwick. Ordan Pelwick thanked Velmira Tosgrath and left the mill."
)
"""A text in the style that the checkpoint was trained on: made-up names that recur, so that an induction head shows."""


def shipped_checkpoint() -> Path:
    """Return the folder of the checkpoint that ships with the package.

    It is a two-layer GPT-NeoX with a clear induction head; `AutoModelForCausalLM.from_pretrained` and
    `AutoTokenizer.from_pretrained` take the folder as it is. The folder's README.md is its model card.
    """
    return Path(__file__).parent / "induction-neox"
