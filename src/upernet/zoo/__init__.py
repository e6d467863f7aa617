"""What is published, what ships inside, and how weights get here."""
