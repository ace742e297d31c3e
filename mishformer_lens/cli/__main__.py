"""``python -m mishformer_lens.cli`` does what ``mishformer-lens`` does."""

from mishformer_lens.cli import main

main()
