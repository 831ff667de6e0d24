//! The JSON of REST answers, as protobuf and TensorFlow Serving's `json_tensor.cc` write it.

use serde_json::{Map, Value, json};

use super::request::Format;
use crate::errors::Failure;
use crate::messages::{
    Class, ClassificationResult, Classifications, ModelVersionStatus, RegressionResult, SignatureDef,
    TensorInfo, TensorProto,
};
use crate::signature::SIGNATURES;
use crate::tensor;

/// The answer to a Predict. Every signature here that Predict runs has one output, which needs no name.
pub(crate) fn predictions(outputs: &[&TensorProto], format: Format) -> Result<String, Failure> {
    let Some(tensor) = outputs.first() else {
        return Err(Failure::invalid("Cannot convert empty tensor map to JSON"));
    };
    let sizes: Vec<i64> =
        tensor.tensor_shape.iter().flat_map(|shape| &shape.dim).map(|dim| dim.size).collect();
    let key = match format {
        Format::Row => "predictions",
        Format::Columnar => "outputs",
    };
    let mut text = format!("{{\n    \"{key}\": ");
    write_floats(&mut tensor.float_val.iter(), &sizes, &mut text);
    text.push_str("\n}");
    Ok(text)
}

fn write_floats(values: &mut std::slice::Iter<'_, f32>, sizes: &[i64], text: &mut String) {
    let Some((&size, inner)) = sizes.split_first() else {
        text.push_str(&values.next().map_or_else(|| "null".to_owned(), |&value| decimal(value)));
        return;
    };
    text.push('[');
    for index in 0..size {
        if 0 < index {
            text.push_str(", ");
        }
        write_floats(values, inner, text);
    }
    text.push(']');
}

/// The shortest decimal that reads back as the same float, with `.0` for whole numbers.
fn decimal(value: f32) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value < 0.0 { "-Infinity".to_owned() } else { "Infinity".to_owned() }
    } else {
        format!("{value:?}")
    }
}

pub(crate) fn classifications(result: &ClassificationResult) -> String {
    let class = |class: &Class| json!([class.label, class.score]);
    let row = |row: &Classifications| row.classes.iter().map(class).collect::<Value>();
    pretty(&json!({ "results": result.classifications.iter().map(row).collect::<Value>() }))
}

pub(crate) fn regressions(result: &RegressionResult) -> String {
    pretty(&json!({ "results": result.regressions.iter().map(|it| it.value).collect::<Value>() }))
}

pub(crate) fn status(versions: &[ModelVersionStatus]) -> String {
    let version = |status: &ModelVersionStatus| {
        json!({
            // The JSON of protobuf writes 64-bit numbers as text.
            "version": status.version.to_string(),
            "state": status.state().name(),
            "status": { "error_code": "OK", "error_message": "" },
        })
    };
    pretty(&json!({ "model_version_status": versions.iter().map(version).collect::<Value>() }))
}

pub(crate) fn metadata(name: &str, version: i64) -> String {
    let signatures: Map<_, _> = SIGNATURES.iter().map(|(name, it)| (name.clone(), signature(it))).collect();
    pretty(&json!({
        "model_spec": { "name": name, "signature_name": "", "version": version.to_string() },
        "metadata": { "signature_def": { "signature_def": signatures } },
    }))
}

fn signature(signature: &SignatureDef) -> Value {
    let info = |(name, info): (&String, &TensorInfo)| {
        let shape = info.tensor_shape.clone().unwrap_or_default();
        let dim = shape.dim.iter().map(|dim| json!({ "size": dim.size.to_string(), "name": dim.name }));
        let shape = json!({ "dim": dim.collect::<Value>(), "unknown_rank": shape.unknown_rank });
        let dtype = tensor::dtype_name(info.dtype());
        (name.clone(), json!({ "dtype": dtype, "tensor_shape": shape, "name": info.name }))
    };
    let inputs: Map<_, _> = signature.inputs.iter().map(info).collect();
    let outputs: Map<_, _> = signature.outputs.iter().map(info).collect();
    json!({ "inputs": inputs, "outputs": outputs, "method_name": signature.method_name, "defaults": {} })
}

pub(crate) fn error(message: &str) -> String {
    pretty(&json!({ "error": message }))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}
