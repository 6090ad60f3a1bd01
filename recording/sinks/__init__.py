"""Where finished recordings are kept for good."""
