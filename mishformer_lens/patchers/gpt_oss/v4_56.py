"""GPT-OSS whose experts take turns on the CPU, too."""

from mishformer_lens.patchers.gpt_oss import shared
from mishformer_lens.patchers.llama_like import v4_48

CACHE_ARGUMENT = v4_48.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_48.CACHE_BY_PLACE
ATTENTION = shared.ATTENTION
UNSUPPORTED = shared.UNSUPPORTED

EDITS = shared.edits(shared.ROUTED, shared.TURNS)
