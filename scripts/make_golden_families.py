"""Write tests/golden/families.safetensors, from TransformerLens's own ``HookedTransformer``.

Run it in the cells of 4.55, 4.57 and 5.9, in this order: ``python -m scripts.make_golden_families``. Each puts in
what its TransformerLens carries.
"""

import functools

from tests.conformance.families import golden
from tests.conformance.families.transformer_lens import carried, run_reference


def main() -> None:
    made = carried()
    golden.write({kind: golden.sample(kind, functools.partial(run_reference, kind)) for kind in made})
    print(f"{', '.join(made)}\n{golden.FILE}: {golden.FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
