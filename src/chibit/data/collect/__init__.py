"""Data made on the spot with the behavior policies that the package ships."""
