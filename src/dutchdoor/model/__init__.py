"""Records and the pure rules that decide over them: no I/O, no clock."""
