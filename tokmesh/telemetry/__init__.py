"""What is visible from outside: metrics, resources, logs, traces, and the status that is made of them."""
