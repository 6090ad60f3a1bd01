"""Audio to sealed records on durable storage, and back."""
