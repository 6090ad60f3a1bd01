"""From the taps to the recorder: one thread drains every tap with one crossing of the GIL."""
