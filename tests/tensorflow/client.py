"""The official Python client of TensorFlow Serving: JSON requests in, JSON answers out, a line each.

    echo '{"model": "resnet", "version": 1, "values": [1, 2, 5]}' | python client.py localhost:10000

A request has any of
    method         Predict (default), Classify, Regress, GetModelMetadata, GetModelStatus,
                   HandleReloadConfigRequest
    model          name of the model; without it, `model_spec` is left out
    version, label which version; without either, the latest
    signature      name of the signature
    values         the numbers to send, or
    count          how many numbers to send: 0, 1, 2 and so on
    gzip           true: compress the request
    metadata       an object of request headers
    timeout        seconds (default 30)
An answer has `code`, `details`, `headers`, `trailers`, and either `model`, `version` and `values` or, where the status
has details, `error_info` and `retry_info`. Of more than 64 values it has `count`, `first`, `last` and `sum`.
Of Predict it has `sent_sha256`, the digest of the tensor that was sent.
"""

import hashlib
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import grpc  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402: TensorFlow reads the variables above when it is imported.
from google.protobuf import json_format  # noqa: E402
from google.rpc import error_details_pb2, status_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

MAX_LISTED = 64
REQUESTS = {
    "Predict": predict_pb2.PredictRequest,
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
    "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
    "HandleReloadConfigRequest": model_management_pb2.ReloadConfigRequest,
}
MODEL_SERVICE = ("GetModelStatus", "HandleReloadConfigRequest")
DETAILS = {"error_info": error_details_pb2.ErrorInfo, "retry_info": error_details_pb2.RetryInfo}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    # An answer of 4 MiB is over the client's default limit.
    channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.max_receive_message_length", -1)])
    client = Client(channel)
    for line in sys.stdin:
        print(json.dumps(client.call(json.loads(line))), flush=True)


class Client:
    def __init__(self, channel):
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(channel)

    def call(self, asked):
        method = asked.get("method", "Predict")
        values = np.array(asked.get("values", []), dtype=np.float32)
        if "count" in asked:
            values = np.arange(asked["count"], dtype=np.float32)
        request = request_of(method, values)
        set_spec(request, asked)
        stub = self._models if method in MODEL_SERVICE else self._prediction
        future = getattr(stub, method).future(
            request,
            timeout=asked.get("timeout", 30),
            metadata=list(asked.get("metadata", {}).items()),
            compression=grpc.Compression.Gzip if asked.get("gzip") else grpc.Compression.NoCompression,
        )
        error = future.exception()
        answer = {"code": future.code().name, "details": future.details() or ""}
        answer["headers"] = texts(future.initial_metadata())
        answer["trailers"] = texts(future.trailing_metadata())
        if method == "Predict":
            answer["sent_sha256"] = hashlib.sha256(values.tobytes()).hexdigest()
        answer.update(status_details(future) if error else content(method, future.result()))
        return answer


def request_of(method, values):
    request = REQUESTS[method]()
    if method == "Predict":
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(values))
    elif method in ("Classify", "Regress"):
        for value in values:
            example = request.input.example_list.examples.add()
            example.features.feature["x"].float_list.value.append(value)
    elif method == "GetModelMetadata":
        request.metadata_field.append("signature_def")
    return request


def set_spec(request, asked):
    if "model" in asked:
        request.model_spec.name = asked["model"]
    if "version" in asked:
        request.model_spec.version.value = int(asked["version"])
    if "label" in asked:
        request.model_spec.version_label = asked["label"]
    if "signature" in asked:
        request.model_spec.signature_name = asked["signature"]


def texts(metadata):
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def content(method, response):
    if method == "HandleReloadConfigRequest":
        return {}
    if method == "GetModelStatus":
        return {"versions": [str(status.version) for status in response.model_version_status]}
    answer = {"model": response.model_spec.name, "version": str(response.model_spec.version.value)}
    if method == "Predict":
        answer.update(listed(tf.make_ndarray(response.outputs["y"]).ravel()))
    elif method == "Classify":
        classes = [it for row in response.result.classifications for it in row.classes]
        answer.update(values=[it.score for it in classes], labels=[it.label for it in classes])
    elif method == "Regress":
        answer["values"] = [it.value for it in response.result.regressions]
    return answer


def listed(values):
    if len(values) <= MAX_LISTED:
        return {"values": values.tolist()}
    ends = {"first": float(values[0]), "last": float(values[-1])}
    return {"count": len(values), **ends, "sum": float(values.sum(dtype=np.float64))}


def status_details(call):
    """The details of `google.rpc.Status`, where the server or a proxy sent one."""
    details = {}
    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            details["status"] = {"code": status.code, "message": status.message}
            for packed in status.details:
                for name, kind in DETAILS.items():
                    if packed.Is(kind.DESCRIPTOR):
                        message = kind()
                        packed.Unpack(message)
                        details[name] = json_format.MessageToDict(message)
    return details


if __name__ == "__main__":
    main()
