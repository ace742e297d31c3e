"""Patches in the manner of a first try: on constructors, and on one attention class per implementation, as in 4.45."""

GPT2 = """
import transformers
from mishax import ast_patcher

PATCHER = ast_patcher.ModuleASTPatcher(
    transformers.models.gpt2.modeling_gpt2,
    ast_patcher.PatchSettings(prefix="import logging", allow_num_matches_upto=dict(GPT2Attention=2)),
    GPT2Model=[
        ("self.wte = nn.Embedding(config.vocab_size, self.embed_dim)",
         "self.wte = nn.Embedding(config.vocab_size, self.embed_dim)\\nself.on_embed = Tap()"),
        ("inputs_embeds = self.wte(input_ids)", "inputs_embeds = self.on_embed(self.wte(input_ids))"),
    ],
    GPT2Attention=[
        ("self.attn_dropout = nn.Dropout(config.attn_pdrop)",
         "self.attn_dropout = nn.Dropout(config.attn_pdrop)\\nself.on_scores = Tap()"),
        ("attn_weights = nn.functional.softmax(attn_weights, dim=-1)",
         "attn_weights = nn.functional.softmax(self.on_scores(attn_weights), dim=-1)"),
    ],
    GPT2SdpaAttention=[
        ("attn_output = attn_output.transpose(1, 2).contiguous()",
         "attn_output = self.on_mixed(attn_output.transpose(1, 2).contiguous())"),
    ],
    GPT2Block=[
        ("attn_output = attn_outputs[0]", "attn_output = self.on_attention(attn_outputs[0])"),
        ("feed_forward_hidden_states = self.mlp(hidden_states)",
         "feed_forward_hidden_states = self.on_mlp(self.mlp(hidden_states))"),
    ],
)
"""

GPT_NEOX = {
    "GPTNeoXSdpaAttention": [
        ["attn_output = self.dense(attn_output)", "attn_output = self.on_out(self.dense(attn_output))"],
    ],
    "GPTNeoXAttention": [
        [
            "attn_output = self._merge_heads(attn_output, self.num_attention_heads, self.head_size)",
            "attn_output = self.on_mixed(self._merge_heads(attn_output, self.num_attention_heads, self.head_size))",
        ],
        ["query = torch.cat((query, query_pass), dim=-1)", "query = self.on_q(torch.cat((query, query_pass), dim=-1))"],
    ],
    "GPTNeoXLayer": [
        [
            "self.attention = GPT_NEOX_ATTENTION_CLASSES[config._attn_implementation](config, layer_idx)",
            "self.attention = GPTNeoXSdpaAttention(config, layer_idx)",
        ],
        ["attn_output = attention_layer_outputs[0]", "attn_output = self.on_attention(attention_layer_outputs[0])"],
    ],
    "GPTNeoXModel": [
        [
            "hidden_states = self.emb_dropout(inputs_embeds)",
            "hidden_states = self.emb_dropout(self.on_embed(inputs_embeds))",
        ],
    ],
}
