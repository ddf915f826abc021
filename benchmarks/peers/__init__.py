"""The contenders, one kind a file, each at its best settings and in its own idiom."""
