"""GPT-OSS, with a window in the first layer."""

from tests.kinds import Kind, names, source

KINDS = {
    "gpt_oss": Kind(
        "gpt_oss",
        names("GptOss"),
        {
            "head_dim": 10,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_scaling": None,
        },
        d_head=10,
        windows=(4, None),
        sinks=True,
        experts=4,
        d_expert=48,
        weights_after_choice=True,
        choices_add_up=False,
        # In evaluation, whatever the configuration says.
        experts_together="if self.training:" in source("gpt_oss"),
        clamped=True,
    ),
}
