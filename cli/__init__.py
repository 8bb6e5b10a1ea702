"""The operator's command line; speaks only gRPC."""
