"""Edits on Python source: matched on the syntax tree, spliced by position, compiled against a living module.

The engine knows Python. It knows nothing of transformers, of hooks or of releases.
"""

from mishformer_lens.engine.building import BuiltMembers, build_members
from mishformer_lens.engine.edits import Edit, EditLike, Edits, as_edits
from mishformer_lens.engine.fingerprint import member_fingerprints, source_fingerprint
from mishformer_lens.engine.live_code import changed_since_import, compiled_code, replaced_by
from mishformer_lens.engine.patching import PatchedSource, failing_edits, patch_source

__all__ = [
    "BuiltMembers",
    "Edit",
    "EditLike",
    "Edits",
    "PatchedSource",
    "as_edits",
    "build_members",
    "changed_since_import",
    "compiled_code",
    "failing_edits",
    "member_fingerprints",
    "patch_source",
    "replaced_by",
    "source_fingerprint",
]
