"""The demo: small real models, a catalog of them, and the whole story on one machine."""
