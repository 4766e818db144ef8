"""The .nvc bitstream: bytes to integers and back. SPEC.md is normative; nothing here needs torch."""
