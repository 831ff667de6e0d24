"""PredictionService and ModelService of TensorFlow Serving, on its official stubs."""

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from predict import DEFAULT_SIGNATURE, predict, signature_of
from servables import ServingError, invalid, not_found

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
# For each method: what it is called in messages, and the outputs that its signature may have.
EXAMPLE_METHODS = {CLASSIFY: ("classification", ("scores", "classes")), REGRESS: ("regression", ("outputs",))}

# The typed field of `TensorProto` for each dtype, which is how TensorFlow Serving writes its answers.
TYPED_FIELDS = {
    np.dtype(np.float32): "float_val",
    np.dtype(np.float64): "double_val",
    np.dtype(np.int32): "int_val",
    np.dtype(np.int64): "int64_val",
    np.dtype(np.bool_): "bool_val",
}


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, catalogue, ledger, digests):
        self._catalogue = catalogue
        self._ledger = ledger
        self._digests = digests

    def Predict(self, request, context):
        with aborting(context):
            servable = self._find(request)
            signature = signature_of(servable, request.model_spec.signature_name)
            inputs = {alias: self._array(servable, signature, alias, tensor)
                      for alias, tensor in request.inputs.items()}
            outputs = predict(servable, signature, inputs, request.output_filter)
            answer = predict_pb2.PredictResponse()
            fill_spec(answer.model_spec, servable, request.model_spec.signature_name or DEFAULT_SIGNATURE)
            for alias, array in outputs.items():
                answer.outputs[alias].CopyFrom(tensor_of(np.asarray(array)))
            return answer

    def Classify(self, request, context):
        with aborting(context):
            servable, name, outputs = self._run_examples(request, CLASSIFY)
            answer = classification_pb2.ClassificationResponse()
            fill_spec(answer.model_spec, servable, name)
            fill_classifications(answer.result, outputs)
            return answer

    def Regress(self, request, context):
        with aborting(context):
            servable, name, outputs = self._run_examples(request, REGRESS)
            answer = regression_pb2.RegressionResponse()
            fill_spec(answer.model_spec, servable, name)
            fill_regressions(answer.result, outputs)
            return answer

    def MultiInference(self, request, context):
        with aborting(context):
            # The first task alone selects the version (multi_inference_helper.cc).
            first = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
            servable = self._catalogue.find(first)
            self._check_tasks(servable, request.tasks)
            examples = serialized_examples(request.input)
            answer = inference_pb2.MultiInferenceResponse()
            for task in request.tasks:
                signature = servable.signatures[task.model_spec.signature_name or DEFAULT_SIGNATURE]
                outputs = run_examples(servable, signature, task.method_name, examples)
                result = answer.results.add()
                fill_spec(result.model_spec, servable, task.model_spec.signature_name)
                if task.method_name == CLASSIFY:
                    fill_classifications(result.classification_result, outputs)
                else:
                    fill_regressions(result.regression_result, outputs)
            return answer

    def GetModelMetadata(self, request, context):
        with aborting(context):
            check_spec(request)
            if not request.metadata_field:
                raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
            for field in request.metadata_field:
                if field != "signature_def":
                    raise invalid(f"Metadata field {field} is not supported")
            servable = self._catalogue.find(request.model_spec)
            answer = get_model_metadata_pb2.GetModelMetadataResponse()
            fill_spec(answer.model_spec, servable, "")
            answer.metadata["signature_def"].Pack(signature_map(servable))
            return answer

    def _find(self, request):
        check_spec(request)
        return self._catalogue.find(request.model_spec)

    def _array(self, servable, signature, alias, tensor):
        try:
            array = tf.make_ndarray(tensor)
        except (TypeError, ValueError) as error:
            raise invalid(f"tensor parsing error: {alias}") from error
        if alias in signature.inputs and signature.inputs[alias].dtype != tensor.dtype:
            wanted, sent = (tf.as_dtype(it).name for it in (signature.inputs[alias].dtype, tensor.dtype))
            raise invalid(f"Expects arg[0] to be {c_name(wanted)} but {c_name(sent)} is provided")
        if self._digests:
            self._ledger.received(servable, alias, array)
        return array

    def _run_examples(self, request, method):
        servable = self._find(request)
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if name not in servable.signatures:
            raise invalid(f"No signature was found with the name: {name}")
        examples = serialized_examples(request.input)
        return servable, name, run_examples(servable, servable.signatures[name], method, examples)

    def _check_tasks(self, servable, tasks):
        seen = set()
        for task in tasks:
            name = task.model_spec.signature_name or DEFAULT_SIGNATURE
            if task.model_spec.name != servable.model:
                raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
            if name in seen:
                raise invalid(f"Duplicate evaluation of signature: {name}")
            if name not in servable.signatures:
                raise invalid(f"Requested signature not found in model graph: {name}")
            if task.method_name not in EXAMPLE_METHODS:
                raise ServingError(
                    grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
                )
            seen.add(name)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Status only: what is loaded is settled when the server starts."""

    def __init__(self, catalogue):
        self._catalogue = catalogue

    def GetModelStatus(self, request, context):
        with aborting(context):
            check_spec(request)
            return model_status(self._catalogue, request.model_spec)


class aborting:
    """Turns a `ServingError` into the status of the call."""

    def __init__(self, context):
        self._context = context

    def __enter__(self):
        return self

    def __exit__(self, _kind, error, _trace):
        if isinstance(error, ServingError):
            self._context.abort(error.code, error.message)


def check_spec(request):
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


def fill_spec(spec, servable, signature_name):
    spec.name = servable.model
    spec.version.value = servable.version
    spec.signature_name = signature_name


def model_status(catalogue, spec):
    """The state of one version, or of all; a label is ignored, as TensorFlow Serving ignores it."""
    versions = catalogue.versions(spec.name)
    if spec.HasField("version"):
        if spec.version.value not in versions:
            raise not_found(f"Could not find version {spec.version.value} of model {spec.name}")
        versions = [spec.version.value]
    if not versions:
        raise not_found(f"Could not find any versions of model {spec.name}")
    answer = get_model_status_pb2.GetModelStatusResponse()
    for version in versions:
        status = answer.model_version_status.add(version=version)
        status.state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        status.status.error_code = 0
    return answer


def signature_map(servable):
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in servable.signatures.items():
        signatures.signature_def[name].CopyFrom(signature)
    return signatures


def tensor_of(array):
    field = TYPED_FIELDS.get(array.dtype)
    if field is None:
        return tf.make_tensor_proto(array)
    tensor = predict_pb2.PredictRequest().inputs["it"]
    tensor.dtype = tf.as_dtype(array.dtype).as_datatype_enum
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    getattr(tensor, field).extend(array.ravel())
    return tensor


def c_name(dtype):
    """The name that TensorFlow's C++ messages use."""
    return {"float32": "float", "float64": "double"}.get(dtype, dtype)


def serialized_examples(model_input):
    kind = model_input.WhichOneof("kind")
    examples = list(getattr(model_input, kind).examples) if kind else []
    if kind == "example_list_with_context":
        # An example adds to the context and wins over it.
        merged = [type(example)() for example in examples]
        for whole, example in zip(merged, examples):
            whole.CopyFrom(model_input.example_list_with_context.context)
            whole.MergeFrom(example)
        examples = merged
    if not examples:
        raise invalid("Input is empty.")
    return np.array([example.SerializeToString() for example in examples], dtype=object)


def run_examples(servable, signature, method, examples):
    what, aliases = EXAMPLE_METHODS[method]
    if "inputs" not in signature.inputs:
        raise invalid(f"No {what} inputs found in SignatureDef: {signature}")
    fetches = [signature.outputs[alias].name for alias in aliases if alias in signature.outputs]
    if not fetches:
        raise invalid(f"No {what} outputs found in SignatureDef: {signature}")
    return servable.run({signature.inputs["inputs"].name: examples}, fetches)


def fill_classifications(result, outputs):
    scores, classes = outputs
    for row_of_scores, row_of_classes in zip(scores, classes):
        classification = result.classifications.add()
        for score, label in zip(row_of_scores, row_of_classes):
            classification.classes.add(label=label, score=score)


def fill_regressions(result, outputs):
    for value in outputs[0].ravel():
        result.regressions.add(value=value)
