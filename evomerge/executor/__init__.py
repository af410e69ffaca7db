"""Where candidates are built and scored: in this process, or on Ray actors."""
