"""Key providers and the pool of single-use data keys. Only the keys threads call a provider."""
