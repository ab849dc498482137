"""The house rules, each as a check that reads the sources."""
