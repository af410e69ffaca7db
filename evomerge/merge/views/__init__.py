"""Sources that are computed from other sources while they are read: adapters, stacked layers, other vocabularies."""
