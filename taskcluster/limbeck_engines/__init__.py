"""Task graph -> finished tasks. Each engine runs the same tasks; they differ in where."""
