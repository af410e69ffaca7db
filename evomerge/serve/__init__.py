"""A pool server: a base and its experts, scored for others who never see a weight. `evomerge serve-pool` runs it."""
