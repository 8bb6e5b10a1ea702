"""Ways to run the product: the demo here, units and images beside it."""
