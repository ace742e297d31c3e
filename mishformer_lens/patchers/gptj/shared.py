"""Edits that the GPT-J variants have in common."""

from mishformer_lens.patchers.llama_like.forms import INTO_HEADS
from mishformer_lens.patchers.llama_like.parallel import RESIDUAL_PRE

PROJECTIONS = [
    *INTO_HEADS,
    ("self.out_proj(attn_output)", "self.head_results.project(self.out_proj, attn_output)"),
]

MLP = {
    "GPTJMLP.forward": [
        ("self.act(hidden_states)", "self.hook_post(self.act(self.hook_pre(hidden_states)))"),
    ],
}

MODEL = {
    "GPTJModel.forward": [
        ("hidden_states = inputs_embeds", "hidden_states = self.hook_embed(inputs_embeds)"),
    ],
}


def block(attn_output: str) -> dict[str, list[tuple[str, str]]]:
    """The edits of a block that calls what its attention gives ``attn_output``."""
    return {
        "GPTJBlock.forward": [
            RESIDUAL_PRE,
            ("self.ln_1(hidden_states)", "self.attention_inputs.normalize(self.ln_1, hidden_states)"),
            (
                "feed_forward_hidden_states = self.mlp(hidden_states)",
                f"""
                {attn_output} = self.hook_attn_out({attn_output})
                feed_forward_hidden_states = self.hook_mlp_out(
                    self.mlp(self.shared_norm.for_mlp(self.ln_1, residual, hidden_states, may_edit))
                )
                """,
            ),
            (
                f"{attn_output} + feed_forward_hidden_states + residual",
                f"self.hook_resid_post({attn_output} + feed_forward_hidden_states + residual)",
            ),
        ],
    }
