"""GPT-J: one norm before attention and MLP, half of each head rotated, in adjacent pairs."""

from tests.kinds import Counterpart, Kind, names

GPTJ = Kind(
    "gptj",
    names("GPTJ"),
    {"n_inner": 48, "rotary_dim": 4, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    key_value_heads=4,
    parallel=True,
    shared_norm=True,
    gated=False,
    rotated=(4, 4),
    norm="layer",
    in_transformer_lens=(Counterpart("2.15", {"n_inner": None}),),
    modules={
        "ln1": "ln_1",
        "q": "attn.q_proj",
        "k": "attn.k_proj",
        "v": "attn.v_proj",
        "out": "attn.out_proj",
        "in": "mlp.fc_in",
        "down": "mlp.fc_out",
    },
)
KINDS = {"gptj": GPTJ}
