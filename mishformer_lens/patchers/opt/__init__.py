"""OPT: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import Attention, Need, Norm

_NORMS_BEHIND = (
    "its norms stand behind attention and MLP and make the residual stream anew, so that ln1, ln2 and the residual "
    "stream mean something else there than in TransformerLens, which refuses such models, too"
)

FAMILY = Family(
    name="opt",
    base_model="OPTDecoder",
    components={
        "blocks": "layers",
        "ln_final": "final_layer_norm",
        "attn": "self_attn",
        # Two projections of the block itself.
        "mlp": "",
        "ln1": "self_attn_layer_norm",
        "ln2": "final_layer_norm",
    },
    norm=Norm("layer", own=False),
    attention=Attention(rotary=False, n_heads="num_heads"),
    learned_positions=True,
    needs={
        "do_layer_norm_before": Need(True, _NORMS_BEHIND),
        "_remove_final_layer_norm": Need(False, "it has no norm behind its blocks, so ln_final would never fire"),
    },
)
