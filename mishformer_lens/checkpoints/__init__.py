"""The small checkpoint that ships with the package, so that the demo runs without a download."""

from pathlib import Path
from typing import Final

DEMO_TEXT: Final = (
    "Velmira Tosgrath carried a copper lantern to the mill. Dorvan Pelwick was waiting at the mill with a blue rope. "
    "Velmira Tosgrath gave the copper lantern to Dorvan Pelwick. Dorvan Pelwick thanked Velmira Tosgrath and left."
)
"""Made-up names that recur, in the style of what the checkpoint learnt from, so that an induction head shows."""


def shipped_checkpoint() -> Path:
    """Return the folder of the checkpoint that ships with the package.

    It is a two-layer GPT-NeoX with clear induction heads; `AutoModelForCausalLM.from_pretrained` and
    `AutoTokenizer.from_pretrained` take the folder as it is. The folder's README.md is its model card.
    """
    return Path(__file__).parent / "induction-neox"
