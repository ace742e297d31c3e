"""GLM-4: as GLM, with norms after attention and MLP too."""

from tests.kinds import Kind, names
from tests.kinds.glm import FIELDS, FUSED

KINDS = {
    "glm4": Kind(
        "glm4",
        names("Glm4"),
        {**FIELDS, "tie_word_embeddings": True},
        norms="both",
        rotated=(4, 4),
        modules={**FUSED, "ln1_post": "post_self_attn_layernorm", "ln2_post": "post_mlp_layernorm"},
    ),
}
