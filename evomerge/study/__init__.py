"""A study from its file to its end: settings, pool, fitness, strategy, executor and store joined."""
