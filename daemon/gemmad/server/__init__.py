"""The HTTP door: guard, routes and streams."""
