"""The Hub's own protocol as its clients read it: for `llm-router-hub`, and for the router's `/hub`.

Source: the Hub's API documentation (huggingface.co/docs/hub/api) and what the `huggingface_hub` 2.x
client sends and reads.
"""
