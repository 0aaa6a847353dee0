"""OpenVINO on a CPU that multiplies in bfloat16."""
