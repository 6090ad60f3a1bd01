"""Key providers and the pool of single-use data keys. Only the keys thread calls a provider."""
