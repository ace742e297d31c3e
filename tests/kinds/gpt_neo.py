"""GPT-Neo: learned positions, scores that are not scaled, one layer with a window."""

from tests.kinds import Counterpart, Kind, names

GPT_NEO = Kind(
    "gpt_neo",
    names("GPTNeo"),
    {
        "num_heads": 4,
        "num_layers": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 5,
        "attention_dropout": 0.0,
        "embed_dropout": 0.0,
        "resid_dropout": 0.0,
    },
    key_value_heads=4,
    gated=False,
    rotary=False,
    learned_positions=True,
    attention_scale=1.0,
    windows=(None, 5),
    # Its flash attention is not told of windows.
    like_flash={"window_size": 64},
    norm="layer",
    in_transformer_lens=(Counterpart("2.15", {"intermediate_size": None}),),
    modules={
        "ln1": "ln_1",
        "ln2": "ln_2",
        "q": "attn.attention.q_proj",
        "k": "attn.attention.k_proj",
        "v": "attn.attention.v_proj",
        "out": "attn.attention.out_proj",
        "in": "mlp.c_fc",
        "down": "mlp.c_proj",
    },
)
KINDS = {"gpt_neo": GPT_NEO}
