"""What is kept on this disk: blobs named by their content, and manifests that bind them."""
