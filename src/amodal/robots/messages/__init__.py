"""Messages as arrays and arrays as messages, whichever library made the classes; nothing here imports ROS."""
