"""PACO: every object of a picture completed, layer by layer. So far: the order of occlusion and the plan of passes."""
