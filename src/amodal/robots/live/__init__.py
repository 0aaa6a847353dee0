"""A loop over a camera without ROS: frames in, masks from files or another program, whole objects out, in time."""
