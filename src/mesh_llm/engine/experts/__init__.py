"""What is computed of a mixture of experts besides answers: which experts matter, what a cut costs,
whether it loads. Each in a child of its own."""
