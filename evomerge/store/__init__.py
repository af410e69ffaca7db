"""Where studies live: a journal of turns, snapshots of the state, and everything a person may want to look up."""
