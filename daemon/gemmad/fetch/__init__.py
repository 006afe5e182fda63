"""Bytes of remote files into the store: ranged, resumable, verified, off the event loop."""
