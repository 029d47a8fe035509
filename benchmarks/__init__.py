"""What is measured and against what. Each benchmark is a program; its results lie in ``results/`` as JSON."""
