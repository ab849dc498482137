"""What must be fast. Imports nothing above itself."""
