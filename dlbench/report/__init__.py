"""What becomes of measurements: result records. Nothing here loads TensorFlow."""
