"""Speed of training steps, of compiled programs and of reading images."""
