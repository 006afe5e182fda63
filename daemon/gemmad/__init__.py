"""The daemon: owns sockets, store and residency; never imports torch or transformers."""
