"""What helps dead latents."""
