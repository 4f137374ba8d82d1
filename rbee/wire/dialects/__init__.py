"""Requests and answers of other programs' interfaces, as their clients send and read them."""
