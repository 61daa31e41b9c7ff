"""The commands of `vivit`, one file each: arguments and output. The computations are in the other packages."""
