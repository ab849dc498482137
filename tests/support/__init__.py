"""What tests share: real server processes and settings."""
