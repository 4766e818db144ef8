"""Figures about files: two videos compared, encoders swept beside each other, and the page that shows them."""
