"""Commands to a running process over a Unix-domain socket: the protocol, its server and its client."""
