"""Proof that a decoder follows SPEC.md; imports nothing of the product."""
