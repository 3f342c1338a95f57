"""Scores of predicted maps, and the reports and plots of them."""
