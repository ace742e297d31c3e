"""Write tests/golden/activations.safetensors, from TransformerLens 2.15.4's own ``HookedTransformer``.

Run it where that release is installed: ``python -m scripts.make_golden``.
"""

from mishformer_lens.hooked_transformer.transformer_lens_compat import IS_REFERENCE, RELEASE
from tests.conformance import golden
from tests.hooked_transformer.making import make_reference


def main() -> None:
    if not IS_REFERENCE:
        raise SystemExit(f"TransformerLens {RELEASE} is installed; golden values come from 2.15.4.")
    golden.write(golden.reference_run(make_reference))
    print(f"{golden.FILE}: {golden.FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
