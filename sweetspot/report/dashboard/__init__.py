"""optuna-dashboard on a store: who may come, what they see, and what they may do."""
