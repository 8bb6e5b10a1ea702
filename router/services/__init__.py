"""The verbs: what the router does, whoever asks. Synchronous, any thread, no transport."""
