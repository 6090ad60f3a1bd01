"""Certificates turned into verified, reloadable TLS material. Knows nothing of SIP stacks or recordings."""
