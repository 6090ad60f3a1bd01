"""The C extension. `_native.pyi` is its reference; importing it loads the pjsip libraries."""
