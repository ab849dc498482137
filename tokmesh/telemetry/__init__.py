"""What is visible from outside: metrics, resources, logs."""
