"""Recipe files: one merge said by hand, without a search. mergekit's YAML in and out."""
