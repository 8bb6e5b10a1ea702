"""The operator's command line; speaks only gRPC."""

import os

# stderr is for people: gRPC's core writes its log there, unless somebody asks for it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
