"""The standalone server and its command line, made of nothing but what an embedding application would use."""
