"""What others do with the same files and the same slices, each written anew from its description."""
