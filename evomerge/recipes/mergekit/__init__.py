"""mergekit's YAML: what it says as a recipe file of ours, and recipes as YAML of its own. Its version is 0.1.5."""
