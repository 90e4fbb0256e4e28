"""Small trees in the real layouts, made in seconds."""
