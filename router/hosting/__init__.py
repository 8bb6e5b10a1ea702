"""Serves a folder of models in the Hugging Face Hub's own protocol: `llm-router-hub`."""
