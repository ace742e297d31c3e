"""Edits that the GPT-BigCode variants have in common."""

from mishformer_lens.engine import Edit
from mishformer_lens.patchers.gpt2 import shared as gpt2

# In models with one key for all heads, and in those with a key for each.
PROJECT_IN = Edit("self.c_attn(hidden_states)", "self.attention_inputs.project(self.c_attn, hidden_states)", count=2)

AROUND = {
    "GPTBigCodeMLP.forward": gpt2.MLP["GPT2MLP.forward"],
    "GPTBigCodeBlock.forward": gpt2.BLOCK["GPT2Block.forward"],
    "GPTBigCodeModel.forward": gpt2.MODEL["GPT2Model.forward"],
}
"""All that is around the attention."""
