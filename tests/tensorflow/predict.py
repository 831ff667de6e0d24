"""Predict, as gRPC and REST share it: named tensors in, named tensors out."""

from grpc import StatusCode
from servables import ServingError, invalid

DEFAULT_SIGNATURE = "serving_default"


def signature_of(servable, name):
    name = name or DEFAULT_SIGNATURE
    if name not in servable.signatures:
        raise ServingError(StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    return servable.signatures[name]


def predict(servable, signature, inputs, output_filter=()):
    """Runs `signature` on arrays by alias and answers arrays by alias."""
    _check_aliases(signature, inputs)
    aliases = list(output_filter) or list(signature.outputs)
    for place, alias in enumerate(aliases):
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {{{_listed(signature.outputs)}}}."
            )
        if alias in aliases[:place]:
            raise invalid(f"duplicate output tensor alias: {alias}")
    outputs = servable.run(
        {signature.inputs[alias].name: inputs[alias] for alias in signature.inputs},
        [signature.outputs[alias].name for alias in aliases],
    )
    return dict(zip(aliases, outputs))


def _check_aliases(signature, inputs):
    sent, wanted = set(inputs), set(signature.inputs)
    if len(sent) != len(wanted):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(wanted)} "
            f"len({{{_listed(sent)}}}) != len({{{_listed(wanted)}}}). "
            f"Sent extra: {{{_listed(sent - wanted)}}}. "
            f"Missing but required: {{{_listed(wanted - sent)}}}."
        )
    for alias in sorted(wanted - sent):
        raise invalid(
            f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) "
            "not found in request and no default value provided. "
            f"Inputs expected to be in the request {{{_listed(sent)}}}, or default input alias set: "
        )


def _listed(aliases):
    return ",".join(sorted(aliases))
