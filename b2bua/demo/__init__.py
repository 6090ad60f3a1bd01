"""An endpoint that shares no code with the engine, the demonstration call it makes, and the scorer that judges it."""
