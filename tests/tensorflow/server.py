"""Real TensorFlow behind the gRPC and REST interfaces of TensorFlow Serving, on loopback.

    python server.py --model resnet=models/resnet --version resnet=2 --label resnet:canary=2

No package carries TensorFlow Serving's own binary. This server has what a proxy meets of it: its
official messages and stubs, its look-up of versions and labels, its codes and messages, and real graphs
that compute the answers. It prints one line, `READY grpc=PORT rest=PORT`, when it serves.
"""

import argparse
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from rest import rest_server
from servables import Catalogue, Ledger, ServingError
from services import ModelService, PredictionService

GRACE_SECONDS = 2


def main():
    options = parse()
    ledger = Ledger()
    catalogue = Catalogue(ledger)
    try:
        load(catalogue, options)
    except (OSError, ServingError) as error:
        sys.exit(f"server.py: {error}")

    services = grpc.server(
        ThreadPoolExecutor(options.workers),
        options=[
            # TensorFlow Serving takes and sends messages of any size.
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            # Two servers that are given one port by mistake must not share it silently.
            ("grpc.so_reuseport", 0),
        ],
    )
    prediction = PredictionService(catalogue, ledger, options.digests)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, services)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(catalogue), services)
    grpc_port = services.add_insecure_port(f"127.0.0.1:{options.grpc_port}")
    services.start()
    rest = rest_server(options.rest_port, catalogue, ledger)
    threading.Thread(target=rest.serve_forever, daemon=True).start()

    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    if options.end_with_stdin:
        threading.Thread(target=wait_for_end_of_stdin, args=[end], daemon=True).start()
    print(f"READY grpc={grpc_port} rest={rest.server_port}", flush=True)

    end.wait()
    rest.shutdown()
    services.stop(GRACE_SECONDS).wait()


def load(catalogue, options):
    wanted = {}
    for model, version in options.version:
        wanted.setdefault(model, []).append(int(version))
    for model, directory in options.model:
        catalogue.load(model, directory, wanted.get(model, []))
    for labelled, version in options.label:
        model, _, label = labelled.partition(":")
        catalogue.label(model, label, int(version))


def wait_for_end_of_stdin(end):
    """Whoever holds the other end of the pipe is gone when it closes, whatever became of them."""
    # Not sys.stdin: a thread blocked in it would hold its lock when the interpreter shuts down.
    while os.read(0, 4096):
        pass
    end.set()


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=pair, action="append", required=True, metavar="NAME=DIRECTORY")
    add("--version", type=pair, action="append", default=[], metavar="NAME=VERSION",
        help="serve this version; may be given several times (default: the newest)")
    add("--label", type=pair, action="append", default=[], metavar="NAME:LABEL=VERSION")
    add("--grpc-port", type=int, default=0, help="0: any free port")
    add("--rest-port", type=int, default=0, help="0: any free port")
    add("--workers", type=int, default=8, help="calls served at once")
    add("--digests", action="store_true", help="record the SHA-256 of every tensor received by Predict")
    add("--end-with-stdin", action="store_true", help="end when standard input does")
    return parser.parse_args()


def pair(text):
    key, separator, value = text.partition("=")
    if not (key and separator and value):
        raise argparse.ArgumentTypeError(f"{text!r} has not the form KEY=VALUE")
    return key, value


if __name__ == "__main__":
    main()
