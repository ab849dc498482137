"""Handlers of /admin/v1, one file per resource."""
