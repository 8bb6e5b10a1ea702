"""The gRPC edge: converts, calls a service, converts back."""
