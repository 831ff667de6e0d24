"""TensorFlow Serving's REST API (predict, status, metadata), and what the server has executed.

GET /counts answers the executed calls by model and version, GET /digests the tensors received.
"""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

from predict import predict
from servables import ServingError
from services import fill_spec, model_status, signature_map

# The patterns of http_rest_api_handler.cc, each held against the whole path.
CHOICE = r"(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
POST_PATH = re.compile(rf"(?i)/v1/models/([^/:]+){CHOICE}:(classify|regress|predict)")
GET_PATH = re.compile(rf"(?i)/v1/models(?:/([^/:]+))?{CHOICE}(?:/(metadata))?")
MAX_VERSION = 2**63 - 1

HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class BadRequest(Exception):
    """A request that never comes to a model; the message is the answer's."""


def rest_server(port, catalogue, ledger):
    class Handler(RestHandler):
        pass

    Handler.catalogue = catalogue
    Handler.ledger = ledger
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


class RestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer leaves in one piece, not the headers first.
    wbufsize = -1
    disable_nagle_algorithm = True

    catalogue = None
    ledger = None

    def do_GET(self):
        if self.path == "/counts":
            self._answer(200, self.ledger.counts())
        elif self.path == "/digests":
            self._answer(200, self.ledger.digests())
        else:
            self._serve(GET_PATH, self._get)

    def do_POST(self):
        # The body is read whatever the path is: what is left of it would be read as the next request.
        body = self._body()
        self._serve(POST_PATH, lambda match: self._post(match, body))

    def log_message(self, *_):
        """Health checks would fill the log."""

    def _serve(self, pattern, serve):
        if not self.path.lower().startswith("/v1/"):
            return self._answer(404, {"error": "Not found"})
        match = pattern.fullmatch(self.path)
        try:
            if not match:
                raise BadRequest(f"Malformed request: {self.command} {self.path}")
            if int(match[2] or 0) > MAX_VERSION:
                return self._send(400, b"")
            self._answer(200, serve(match))
        except BadRequest as error:
            self._answer(400, {"error": str(error)})
        except ServingError as error:
            self._answer(HTTP_STATUS.get(error.code, 500), {"error": error.message})

    def _get(self, match):
        if not match[1]:
            raise BadRequest("Missing model name in request.")
        spec = spec_of(match)
        if not match[4]:
            return json_of(model_status(self.catalogue, spec))
        servable = self.catalogue.find(spec)
        metadata = get_model_metadata_pb2.GetModelMetadataResponse()
        fill_spec(metadata.model_spec, servable, "")
        metadata.metadata["signature_def"].Pack(signature_map(servable))
        return json_of(metadata)

    def _post(self, match, body):
        # The pattern takes any case, the comparison of the verb does not.
        if match[4] in ("classify", "regress"):
            raise ServingError(grpc.StatusCode.UNIMPLEMENTED, f"{match[4]} is served over gRPC only")
        if match[4] != "predict":
            raise BadRequest(f"Malformed request: {self.command} {self.path}")
        servable = self.catalogue.find(spec_of(match))
        try:
            request = json.loads(body)
        except ValueError as error:
            raise BadRequest(f"JSON Parse error: {error}") from error
        if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
            raise BadRequest("expected exactly one of 'instances' and 'inputs'")
        name = request.get("signature_name") or "serving_default"
        if name not in servable.signatures:
            raise BadRequest(f'Serving signature name: "{name}" not found in signature def')
        return predict_json(servable, servable.signatures[name], request)

    def _body(self):
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _answer(self, status, value):
        self._send(status, json.dumps(value, indent=1).encode())

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def spec_of(match):
    spec = model_pb2.ModelSpec(name=unquote(match[1]))
    if match[2]:
        spec.version.value = int(match[2])
    elif match[3]:
        spec.version_label = unquote(match[3])
    return spec


def predict_json(servable, signature, request):
    """One value a row (`instances`), or one a tensor (`inputs`)."""
    by_row = "instances" in request
    sent = request["instances"] if by_row else request["inputs"]
    if by_row and isinstance(sent, list) and sent and all(isinstance(row, dict) for row in sent):
        sent = {alias: [row.get(alias) for row in sent] for alias in sent[0]}
    if not isinstance(sent, dict):
        # A tensor without a name is the one input of the signature.
        sent = {alias: sent for alias in signature.inputs}
    outputs = predict(servable, signature, arrays(signature, sent))
    values = {alias: np.asarray(array).tolist() for alias, array in outputs.items()}
    if len(values) == 1:
        (values,) = values.values()
    elif by_row:
        values = [dict(zip(values, row)) for row in zip(*values.values())]
    return {"predictions" if by_row else "outputs": values}


def arrays(signature, sent):
    try:
        return {
            alias: np.array(value, dtype=tf.as_dtype(signature.inputs[alias].dtype).as_numpy_dtype)
            if alias in signature.inputs
            else value
            for alias, value in sent.items()
        }
    except (TypeError, ValueError) as error:
        raise BadRequest(f"Failed to process element: {error}") from error


def json_of(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
