"""View transforms from image features to the bird's-eye-view grid, one file each."""
