"""Search for the best merge of existing models."""
