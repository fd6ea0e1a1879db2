"""What could identify somebody in a dataset: found, and taken out.

The same functions do both, so that what `leaks` reports is what the raw layout cleans. They are pure, but for those
in `nifti` that read and write files. docs/sharing.md says which rules they follow, and whose these are.
"""
