"""A hub of models that speaks the real protocol over loopback, and misbehaves on request."""
