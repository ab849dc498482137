"""Logs as every released format wrote them, kept to the byte: a later release must read them."""
