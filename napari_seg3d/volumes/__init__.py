"""What an image is: its grid, its voxels, its file."""
