"""GLM: gate and up projection in one, part of each head rotated."""

from tests.kinds import MODULES, Kind, names

FUSED = {
    **{role: path for role, path in MODULES.items() if role not in ("gate", "up")},
    "gate_up": "mlp.gate_up_proj",
}
FIELDS = {"head_dim": 8, "attention_bias": True, "partial_rotary_factor": 0.5, "attention_dropout": 0.0}

KINDS = {"glm": Kind("glm", names("Glm"), FIELDS, rotated=(4, 4), modules=FUSED)}
