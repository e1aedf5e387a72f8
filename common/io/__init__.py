"""Reading and writing files: images, checkpoints, a bundle's folder, and the settings of its configs."""
