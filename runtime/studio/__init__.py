"""The studio: a page on this machine to choose videos and models, and to render a queue of them."""
