"""Write tests/golden/hooked_transformer.safetensors, from TransformerLens 2.15.4's own ``HookedTransformer``.

Run it where that release is installed: ``python -m scripts.make_golden_hooked_transformer``.
"""

import tempfile
from pathlib import Path
from typing import Any

from mishformer_lens.hooked_transformer.transformer_lens_compat import IS_REFERENCE, RELEASE
from tests.hooked_transformer import golden
from tests.hooked_transformer.making import make_reference, make_tokenizer


def main() -> None:
    if not IS_REFERENCE:
        raise SystemExit(f"TransformerLens {RELEASE} is installed; golden values come from 2.15.4.")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer(Path(folder))

        def make(kind: str, processed: bool) -> Any:
            return make_reference(kind, tokenizer, processed)

        golden.write(make)
    print(f"{golden.FILE}: {golden.FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
