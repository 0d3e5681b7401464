"""Run a graph on an image that is scaled, in one of the programs that know ONNX.

    python run_onnx.py onnxruntime|opencv GRAPH IMAGE.npy MAPS.npy

Writes the maps; nothing of this project is imported.
"""

import sys

import numpy as np

program, graph, image, target = sys.argv[1:]
shown = np.load(image)
if program == "onnxruntime":
    import onnxruntime

    maps = onnxruntime.InferenceSession(graph).run(None, {"image": shown})[0]
else:
    import cv2

    net = cv2.dnn.readNetFromONNX(graph)
    net.setInput(shown, "image")
    maps = net.forward()
np.save(target, maps)
