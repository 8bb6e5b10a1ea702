"""The control plane: catalog, registered models, orders, nodes, and their edges (gRPC, HTTP)."""
