"""The commands of `vivit`, a file each: its arguments, and what it prints. What is computed stands elsewhere."""
