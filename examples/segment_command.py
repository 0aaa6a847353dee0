"""A program for `amodal live --masks-from`: reads frames, answers which pixels show an object.

    amodal live bundle --source 0 --masks-from "python segment_command.py" --json

Replace `find_objects` by your segmenter: ids must stay with their objects from frame to frame.
"""

import json
import sys

import numpy as np


def find_objects(frame):
    """Returns labels uint16 [h, w] for a frame uint8 [h, w, 3], RGB: here, what is bright is object 1."""
    return (frame.min(axis=2) > 200).astype(np.uint16)


while line := sys.stdin.buffer.readline():
    asked = json.loads(line)
    height, width = asked["height"], asked["width"]
    frame = np.frombuffer(sys.stdin.buffer.read(height * width * 3), np.uint8).reshape(height, width, 3)
    labels = find_objects(frame)
    # Relative depth is optional; here the object is behind everything else. Larger is nearer.
    depth = np.where(labels, 0.0, 1.0).astype("<f4")
    answer = {"number": asked["number"], "labels": "uint16", "depth": True}
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + labels.astype("<u2").tobytes() + depth.tobytes())
    sys.stdout.buffer.flush()
