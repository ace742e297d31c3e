"""What is said of attention kernels in the variants of several families."""

_LABELS = {"sdpa": "sdpa", "flash_attention_2": "flash attention", "flex_attention": "flex attention"}


def only_eager(model: str) -> dict[str, str]:
    """Why a release has eager attention only, of a model whose scores have a bias by position: kernel to reason."""
    return {
        name: f"no release of transformers has {label} for {model}, whose scores have a bias by position"
        for name, label in _LABELS.items()
    }
