"""What runs in the process of one backend; the commands start it and read its JSON lines."""
