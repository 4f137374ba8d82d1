"""The way of a request through hypercorn and quart, without what no daemon uses of them."""
