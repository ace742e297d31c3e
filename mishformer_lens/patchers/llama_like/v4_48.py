"""Llama-like sources since attention looks its function up in the registry of all models."""

from mishformer_lens.engine import Edits
from mishformer_lens.patchers.family import Family

CACHE_ARGUMENT = "past_key_values"
CACHE_BY_PLACE = False
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")
UNSUPPORTED: dict[str, str] = {}

EAGER = [
    (
        "nn.functional.softmax(attn_weights, dim=-1, dtype=torch.float32).to(query.dtype)",
        """
        module.hook_pattern(
            nn.functional.softmax(module.hook_attn_scores(attn_weights), dim=-1, dtype=torch.float32).to(query.dtype)
        )
        """,
    ),
]
# The name where it is called, however the function was looked up.
CALL = ("attention_interface", "self.attention_call.around(attention_interface, eager_attention_forward)")


def edits(family: Family) -> Edits:
    """The edits for ``family``, from the forms that its description chooses."""
    forms = dict(family.forms)
    return {
        "eager_attention_forward": EAGER,
        f"{family.prefix}Attention.forward": [*forms.pop("Attention.forward"), CALL],
        f"{family.base_model}.forward": forms.pop("Model.forward"),
        **{f"{family.prefix}{member}": entries for member, entries in forms.items()},
    }
