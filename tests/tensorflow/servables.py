"""The model versions that a server has loaded, found as TensorFlow Serving finds them.

Graphs run in a TensorFlow session, which is what TensorFlow Serving runs them in.
Codes and messages of errors are those of TensorFlow Serving 2.21.
"""

import hashlib
import os
import threading
from collections import defaultdict, deque

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import tensorflow as tf  # noqa: E402: TensorFlow reads the variables above when it is imported.
from grpc import StatusCode  # noqa: E402

tf1 = tf.compat.v1
tf1.logging.set_verbosity(tf1.logging.ERROR)

CODES = {code.value[0]: code for code in StatusCode}
MAX_MESSAGE_BYTES = 1024


class ServingError(Exception):
    """A call that TensorFlow Serving refuses."""

    def __init__(self, code, message):
        encoded = message.encode()
        if len(encoded) > MAX_MESSAGE_BYTES:
            message = encoded[:MAX_MESSAGE_BYTES].decode(errors="ignore") + "...TRUNCATED"
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message):
    return ServingError(StatusCode.INVALID_ARGUMENT, message)


def not_found(message):
    return ServingError(StatusCode.NOT_FOUND, message)


class Ledger:
    """What this server has executed: the witness that tests believe, rather than any proxy's word."""

    MAX_DIGESTS = 64

    def __init__(self):
        self._lock = threading.Lock()
        self._counts = defaultdict(lambda: defaultdict(int))
        self._digests = deque(maxlen=self.MAX_DIGESTS)

    def executed(self, servable):
        with self._lock:
            self._counts[servable.model][str(servable.version)] += 1

    def received(self, servable, alias, array):
        content = array.tobytes()
        digest = {
            "model": servable.model,
            "version": str(servable.version),
            "input": alias,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        with self._lock:
            self._digests.append(digest)

    def counts(self):
        with self._lock:
            return {model: dict(versions) for model, versions in self._counts.items()}

    def digests(self):
        """The last tensors received, oldest first."""
        with self._lock:
            return list(self._digests)


class Servable:
    """One loaded version of one model."""

    def __init__(self, model, version, directory, ledger):
        self.model = model
        self.version = version
        self._ledger = ledger
        self._lock = threading.Lock()
        self._callables = {}
        self._graph = tf1.Graph()
        # One thread a call: what is tested is the way to the server, not its speed.
        options = tf1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
        with self._graph.as_default():
            self._session = tf1.Session(graph=self._graph, config=options)
            loaded = tf1.saved_model.loader.load(self._session, [tf.saved_model.SERVING], directory)
        self.signatures = loaded.signature_def

    def run(self, feeds, fetches):
        """The values of the tensors `fetches` when those named in `feeds` have the values given there."""
        call = self._callable(tuple(feeds), tuple(fetches))
        self._ledger.executed(self)
        try:
            return call(*feeds.values())
        except tf.errors.OpError as error:
            raise ServingError(CODES[error.error_code], error.message) from error
        except (TypeError, ValueError) as error:
            # The session's Python side checks shapes before the runtime would refuse them.
            raise invalid(str(error)) from error

    def _callable(self, feeds, fetches):
        with self._lock:
            if (feeds, fetches) not in self._callables:
                tensor = self._graph.get_tensor_by_name
                self._callables[feeds, fetches] = self._session.make_callable(
                    [tensor(name) for name in fetches], feed_list=[tensor(name) for name in feeds]
                )
            return self._callables[feeds, fetches]


class Catalogue:
    """Every version that is loaded, and the labels that name some of them."""

    def __init__(self, ledger):
        self._ledger = ledger
        self._versions = {}
        self._labels = {}

    def load(self, model, directory, wanted):
        """Loads the versions `wanted` of `model`, or the newest when none is named."""
        found = sorted(int(name) for name in os.listdir(directory) if name.isdigit())
        missing = sorted(set(wanted) - set(found))
        if missing or not found:
            raise FileNotFoundError(f"{directory}: has versions {found}, wanted {missing or 'at least one'}")
        self._versions[model] = {
            version: Servable(model, version, os.path.join(directory, str(version)), self._ledger)
            for version in wanted or found[-1:]
        }

    def label(self, model, label, version):
        if version not in self.versions(model):
            raise ServingError(
                StatusCode.FAILED_PRECONDITION,
                f"Request to assign label to version {version} of model {model}, "
                "which is not currently available for inference",
            )
        self._labels[model, label] = version

    def versions(self, model):
        """The loaded versions of a model, the newest first."""
        return sorted(self._versions.get(model, {}), reverse=True)

    def find(self, spec):
        """The servable that a `ModelSpec` means."""
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        loaded = self._versions.get(spec.name, {})
        # Presence decides, not value: an empty `version` wrapper asks for version 0.
        choice = spec.WhichOneof("version_choice")
        if choice is None:
            if not loaded:
                raise not_found(f"Servable not found for request: Latest({spec.name})")
            return loaded[max(loaded)]
        if choice == "version":
            version = spec.version.value
        else:
            version = self._labels.get((spec.name, spec.version_label))
            if version is None:
                raise invalid(f"Unrecognized servable version label: {spec.version_label}")
        if version not in loaded:
            raise not_found(f"Servable not found for request: Specific({spec.name}, {version})")
        return loaded[version]
