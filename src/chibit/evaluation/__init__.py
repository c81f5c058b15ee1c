"""Rolling policies out in real environments."""
