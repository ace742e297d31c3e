"""StarCoder2: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import attention_classes, forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS
from mishformer_lens.patchers.parts import Norm

FAMILY = Family(
    name="starcoder2",
    base_model="Starcoder2Model",
    components=COMPONENTS,
    norm=Norm("layer", own=False),
    attention=GROUPED_HEADS,
    drop_in=dataclasses.replace(DROP_IN, mlp_in="mlp.c_fc", mlp_out="mlp.c_proj", mlp_gate=None),
    template="llama_like",
    prefix="Starcoder2",
    forms={
        **forms.SPLIT_PROJECTIONS,
        "MLP.forward": [("self.act(hidden_states)", "self.hook_post(self.act(self.hook_pre(hidden_states)))")],
        **forms.PRE_NORM_LAYER,
        **forms.EMBEDDING,
    },
    class_forms=attention_classes.FLASH_REPEATED,
)
