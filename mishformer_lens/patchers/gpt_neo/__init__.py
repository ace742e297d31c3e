"""GPT-Neo (and TinyStories): what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import Attention, DropIn, Norm

FAMILY = Family(
    name="gpt_neo",
    base_model="GPTNeoModel",
    components={
        "blocks": "h",
        "ln_final": "ln_f",
        # Inside of a module that chooses between attention to all keys and to those in a window.
        "attn": "attn.attention",
        "mlp": "mlp",
        "ln1": "ln_1",
        "ln2": "ln_2",
    },
    norm=Norm("layer", own=False),
    attention=Attention(rotary=False, n_heads="num_heads"),
    learned_positions=True,
    drop_in=DropIn(
        embed="wte",
        pos_embed="wpe",
        qkv=("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
        output="attn.attention.out_proj",
        mlp_in="mlp.c_fc",
        mlp_out="mlp.c_proj",
        config={"act_fn": "activation_function"},
        fixed={"use_attn_scale": False},
        models=tuple(f"EleutherAI/gpt-neo-{size}" for size in ("125M", "1.3B", "2.7B")),
        names={
            **{f"{neo}-small": "EleutherAI/gpt-neo-125M" for neo in ("gpt-neo", "neo")},
            **{f"{neo}-medium": "EleutherAI/gpt-neo-1.3B" for neo in ("gpt-neo", "neo")},
            **{f"{neo}-large": "EleutherAI/gpt-neo-2.7B" for neo in ("gpt-neo", "neo")},
            "neo": "EleutherAI/gpt-neo-125M",
            **{
                f"tiny-stories-{kind.lower()}{size.lower()}": f"roneneldan/TinyStories-{kind}{size}"
                for size in ("1M", "3M", "8M", "28M", "33M")
                for kind in ("", "Instruct-")
            },
            "tiny-stories-1l-21m": "roneneldan/TinyStories-1Layer-21M",
            "tiny-stories-2l-33m": "roneneldan/TinyStories-2Layers-33M",
            # Its name on the hub.
            "tiny-stories-instruct-1l-21m": "roneneldan/TinyStories-Instuct-1Layer-21M",
            "tiny-stories-instruct-2l-33m": "roneneldan/TinyStories-Instruct-2Layers-33M",
        },
    ),
)
