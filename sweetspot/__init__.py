"""Sweetspot: how long, and at which batch size, to train a teacher so that its student is best."""
