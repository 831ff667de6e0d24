"""Builds two versions of the model `resnet` as SavedModels, for real model servers to serve.

Usage: python build_models.py ROOT

ROOT/resnet/1 computes y = 0.5x + 2 and ROOT/resnet/2 computes y = 0.5x + 3, so that an answer tells
which version gave it. Each has a signature to predict, one to classify and one to regress.
A version that is there already is left alone, and one appears only when it is whole, so that a server
which polls ROOT never loads half of it. Needs TensorFlow and nothing else.
"""

import os
import shutil
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import tensorflow as tf  # noqa: E402: TensorFlow reads the variables above when it is imported.

MODEL = "resnet"
SLOPE = 0.5
OFFSETS = {1: 2.0, 2: 3.0}

tf1 = tf.compat.v1
# TensorFlow calls what it needs here itself deprecated, on every use.
tf1.logging.set_verbosity(tf1.logging.ERROR)


def build(directory, offset):
    """Saves y = SLOPE * x + offset."""
    # The builder of TensorFlow 1 is the one that writes the method names classify and regress,
    # without which TensorFlow Serving refuses those calls.
    with tf1.Graph().as_default(), tf1.Session() as session:
        slope = tf1.get_variable("slope", initializer=tf.constant(SLOPE))
        offset = tf1.get_variable("offset", initializer=tf.constant(offset))

        x = tf1.placeholder(tf.float32, name="x")
        y = tf.add(slope * x, offset, name="y")

        serialized = tf1.placeholder(tf.string, [None], name="examples")
        features = {"x": tf1.io.FixedLenFeature([1], tf.float32, default_value=[0.0])}
        scores = tf.add(slope * tf1.io.parse_example(serialized, features)["x"], offset, name="scores")
        classes = tf.fill(tf.shape(scores), tf.constant("y"), name="classes")

        session.run(tf1.global_variables_initializer())
        builder = tf1.saved_model.Builder(directory)
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.SERVING],
            signature_def_map={
                "serving_default": signature("predict", {"x": x}, {"y": y}),
                "classify_x_to_y": signature(
                    "classify", {"inputs": serialized}, {"scores": scores, "classes": classes}
                ),
                "regress_x_to_y": signature("regress", {"inputs": serialized}, {"outputs": scores}),
            },
        )
        builder.save()


def signature(method, inputs, outputs):
    info = tf1.saved_model.build_tensor_info
    return tf1.saved_model.build_signature_def(
        {alias: info(tensor) for alias, tensor in inputs.items()},
        {alias: info(tensor) for alias, tensor in outputs.items()},
        f"tensorflow/serving/{method}",
    )


def publish(root, version):
    """Builds a version beside its place and moves it there, unless somebody has been faster."""
    place = os.path.join(root, MODEL, str(version))
    if os.path.isdir(place):
        print(f"{place} is there already")
        return
    os.makedirs(os.path.dirname(place), exist_ok=True)
    workshop = tempfile.mkdtemp(prefix=".building-", dir=root)
    try:
        built = os.path.join(workshop, str(version))
        build(built, OFFSETS[version])
        os.rename(built, place)
        print(f"{place} computes y = {SLOPE}x + {OFFSETS[version]:g}")
    except OSError:
        if not os.path.isdir(place):
            raise
        print(f"{place} was built by somebody else meanwhile")
    finally:
        shutil.rmtree(workshop)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for version in OFFSETS:
        publish(sys.argv[1], version)


if __name__ == "__main__":
    main()
