"""What our network and other software cost."""
