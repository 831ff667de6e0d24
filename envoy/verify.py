"""Asks for both versions of `resnet` as callers do, and ends with 1 if an answer is not the promised one.

    python verify.py ENVOY:8080...

Version 1 computes 0.5x + 2 and version 2 computes 0.5x + 3, so the numbers tell which pool has answered.
It needs the packages tensorflow and tensorflow-serving-api.
"""

import json
import os
import sys
import urllib.error
import urllib.request

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import grpc  # noqa: E402
import tensorflow as tf  # noqa: E402: TensorFlow reads the variables above when it is imported.
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc  # noqa: E402

MODEL = "resnet"
X = [1.0, 2.0, 5.0]
BY_V1 = [2.5, 3.0, 4.5]
BY_V2 = [3.5, 4.0, 5.5]
SECONDS = 30

# What is asked for, in gRPC's words and as a REST path, and who may answer.
ASKED = [
    ("version 1", {"version": 1}, "/versions/1", [BY_V1]),
    ("version 2", {"version": 2}, "/versions/2", [BY_V2]),
    ("label stable", {"label": "stable"}, "/labels/stable", [BY_V1]),
    ("label canary", {"label": "canary"}, "/labels/canary", [BY_V2]),
    ("no version", {}, "", [BY_V1, BY_V2]),
]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    wrong = sum(verify(address) for address in sys.argv[1:])
    print(f"{wrong} answers are wrong" if wrong else "every answer is as the configuration says", flush=True)
    sys.exit(1 if wrong else 0)


def verify(address):
    """How many answers are wrong."""
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address))
    wrong = 0
    for what, spec, path, wanted in ASKED:
        wrong += not is_as_wanted(f"gRPC, {what}", predict(stub, MODEL, **spec), wanted)
        wrong += not is_as_wanted(f"REST, {what}", rest(address, f"{MODEL}{path}"), wanted)
    refused = "model_not_configured"
    wrong += not is_as_wanted("gRPC, another model", predict(stub, "bert"), [f"NOT_FOUND {refused}"])
    wrong += not is_as_wanted("REST, another model", rest(address, "bert"), [f"404 {refused}"])
    return wrong


def is_as_wanted(what, found, wanted):
    is_right = found in wanted
    words = "ok" if is_right else f"WRONG, expected {' or '.join(map(str, wanted))}"
    print(f"{what}: {found} {words}", flush=True)
    return is_right


def predict(stub, model, version=None, label=None):
    """The numbers of an answer, or the status and the filter's reason."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(X, dtype=tf.float32))
    try:
        answer = stub.Predict(request, timeout=SECONDS)
    except grpc.RpcError as error:
        # A refusal is a status without a body, whose headers the client shows as initial or as trailing metadata.
        metadata = dict([*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())])
        return f"{error.code().name} {metadata.get('x-predictgate-reason', error.details())}"
    return tf.make_ndarray(answer.outputs["y"]).tolist()


def rest(address, model):
    """The numbers of an answer, or the status and the filter's reason."""
    url = f"http://{address}/v1/models/{model}:predict"
    body = json.dumps({"instances": X}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=SECONDS) as answer:
            return json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.headers.get('x-predictgate-reason', error.reason)}"


if __name__ == "__main__":
    main()
