"""Llama, with as many heads of keys and values as of queries, and with fewer; with biases; as Llama 3 rotates."""

from tests.kinds import LLAMA3_ROPE, Counterpart, Kind, head_dim, names

D_HEAD = head_dim("llama", 10)

KINDS = {
    "llama": Kind(
        "llama",
        names("Llama"),
        {"head_dim": 8, "attention_bias": True, "mlp_bias": True},
        in_transformer_lens=(Counterpart("2.15", {"attention_bias": False, "mlp_bias": False}),),
    ),
    "llama_ungrouped": Kind(
        "llama",
        names("Llama"),
        {"num_key_value_heads": 4},
        key_value_heads=4,
        in_transformer_lens=(Counterpart("2.15"),),
    ),
    "llama3": Kind(
        "llama",
        names("Llama"),
        {"head_dim": D_HEAD, "rope_theta": 500000.0, "rope_scaling": LLAMA3_ROPE, "tie_word_embeddings": True},
        d_head=D_HEAD,
        in_transformer_lens=(Counterpart("3.9", {"head_dim": 8}),),
    ),
}
