//! The JSON of REST requests, read into messages with the errors of TensorFlow Serving's `json_tensor.cc`.

use base64::Engine;
use serde_json::{Map, Value};

use crate::errors::{self, Failure};
use crate::messages::{
    BytesList, DataType, Example, ExampleList, ExampleListWithContext, Examples, Feature, FeatureKind,
    Features, FloatList, Input, Int64List, PredictRequest, TensorInfo, TensorProto, TensorShapeProto,
};
use crate::signature::{self, SIGNATURES};
use crate::tensor;

/// How a Predict is written: rows of all inputs, or a column for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Row,
    Columnar,
}

/// The longest part of a request that an error quotes.
const QUOTED: usize = 256;

/// Reads the document; what follows it is not looked at.
pub(crate) fn parse(body: &[u8]) -> Result<Map<String, Value>, Failure> {
    let mut documents = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    match documents.next() {
        Some(Ok(Value::Object(document))) => Ok(document),
        Some(Ok(other)) => Err(quoting(&other, "Is not object")),
        Some(Err(error)) => {
            let lines = body.split_inclusive(|&byte| byte == b'\n').take(error.line().saturating_sub(1));
            let offset = lines.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1);
            Err(Failure::invalid(format!("JSON Parse error: Invalid value. at offset: {offset}")))
        }
        None => Err(Failure::invalid("JSON Parse error: The document is empty")),
    }
}

/// The name of the signature that a document asks for, perhaps empty.
pub(crate) fn signature_name(document: &Map<String, Value>) -> Result<String, Failure> {
    match document.get("signature_name") {
        None => Ok(String::new()),
        Some(Value::String(name)) => Ok(name.clone()),
        Some(_) => Err(quoting(
            &Value::Object(document.clone()),
            "not formatted correctly. 'signature_name' key must be a string value.",
        )),
    }
}

/// Fills the inputs of a Predict whose model is already found.
pub(crate) fn read_predict(
    document: &Map<String, Value>,
    request: &mut PredictRequest,
) -> Result<Format, Failure> {
    let spec = request.model_spec.as_ref();
    let name = signature::name_or_default(spec.map_or("", |spec| &spec.signature_name));
    let signature = SIGNATURES.get(name).ok_or_else(|| errors::no_rest_signature(name))?;
    // Every signature here has one input, so that a plain list is always unambiguous.
    let Some((alias, info)) = signature.inputs.first_key_value() else { return Err(errors::undecodable()) };
    let quote = |text: &str| quoting(&Value::Object(document.clone()), text);
    let (tensor, format) = match (document.get("instances"), document.get("inputs")) {
        (Some(_), Some(_)) => {
            return Err(quote(
                "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
            ));
        }
        (Some(Value::Array(rows)), None) if rows.is_empty() => {
            return Err(quote("No values in 'instances' array"));
        }
        (Some(Value::Array(rows)), None) => (read_rows(rows, alias, info)?, Format::Row),
        (Some(_), None) => return Err(quote("Expecting 'instances' to be an list/array")),
        (None, Some(inputs)) => {
            let column = match inputs {
                Value::Object(named) if !is_base64(inputs) => named.get(alias).ok_or_else(|| {
                    Failure::invalid(format!("Missing named input: {alias} in 'inputs' object."))
                })?,
                plain => plain,
            };
            (read_tensor(column, info)?, Format::Columnar)
        }
        (None, None) => return Err(quote("When method is predict, key 'instances' or 'inputs' is expected")),
    };
    request.inputs.insert(alias.clone(), tensor);
    Ok(format)
}

fn read_rows(rows: &[Value], alias: &str, info: &TensorInfo) -> Result<TensorProto, Failure> {
    let is_named = |row: &Value| row.is_object() && !is_base64(row);
    let named = rows.first().is_some_and(is_named);
    let mut items = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        match (named, row) {
            (true, Value::Object(inputs)) if is_named(row) => {
                if let Some(unknown) = inputs.keys().find(|key| *key != alias) {
                    return Err(Failure::invalid(format!(
                        "Failed to process element: {index} key: {unknown} of 'instances' list. Error: \
                         INVALID_ARGUMENT: JSON object: does not have named input: {unknown}"
                    )));
                }
                items.extend(inputs.get(alias).cloned());
                if inputs.is_empty() {
                    return Err(Failure::invalid(format!(
                        "Failed to process element: {index} of 'instances' list. JSON object: {} keys must \
                         be equal to: {alias}",
                        quote(row)
                    )));
                }
            }
            (true, _) => {
                return Err(Failure::invalid(format!(
                    "Expecting object but got list at item {index} of input list"
                )));
            }
            (false, _) if is_named(row) => {
                return Err(Failure::invalid(format!(
                    "Expecting value/list but got object at item {index} of input list"
                )));
            }
            (false, _) => items.push(row.clone()),
        }
    }
    let list = Value::Array(items);
    read_tensor(&list, info).map_err(|failure| {
        Failure::invalid(format!(
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: {}",
            failure.message
        ))
    })
}

/// A dense tensor, whose shape is that of the first elements.
fn read_tensor(value: &Value, info: &TensorInfo) -> Result<TensorProto, Failure> {
    let mut shape = Vec::new();
    let mut first = value;
    while let Value::Array(list) = first {
        shape.push(list.len());
        match list.first() {
            Some(next) => first = next,
            None => break,
        }
    }
    let sizes: Vec<i64> = shape.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
    let mut tensor = TensorProto {
        dtype: info.dtype,
        tensor_shape: Some(TensorShapeProto::of(&sizes)),
        ..TensorProto::default()
    };
    fill(value, 0, &shape, &mut tensor)?;
    Ok(tensor)
}

fn fill(value: &Value, level: usize, shape: &[usize], tensor: &mut TensorProto) -> Result<(), Failure> {
    let rank = shape.len();
    let Value::Array(list) = value else {
        if level != rank {
            return Err(Failure::invalid(format!(
                "JSON Value: {} found at incorrect level: {} in the JSON DOM. Expected at level: {rank}",
                quote(value),
                level + 1
            )));
        }
        return add(value, tensor);
    };
    let Some(&expected) = shape.get(level) else {
        return Err(Failure::invalid(format!(
            "Encountered list at unexpected level: {level} expected < {rank}"
        )));
    };
    if list.len() != expected {
        return Err(Failure::invalid(format!(
            "Encountered list at unexpected size: {} at level: {level} expected size: {expected}",
            list.len()
        )));
    }
    list.iter().try_for_each(|value| fill(value, level + 1, shape, tensor))
}

fn add(value: &Value, tensor: &mut TensorProto) -> Result<(), Failure> {
    let dtype = tensor.dtype();
    match (dtype, value) {
        (DataType::Float, Value::Number(number)) => {
            #[expect(clippy::cast_possible_truncation, reason = "the nearest float is what is meant")]
            tensor.float_val.push(number.as_f64().unwrap_or(f64::NAN) as f32);
        }
        (DataType::String, Value::String(text)) => tensor.string_val.push(text.clone().into()),
        (DataType::String, Value::Object(_)) => tensor.string_val.push(read_base64(value)?.into()),
        _ => {
            return Err(Failure::invalid(format!(
                "JSON Value: {} Type: {} is not of expected type: {}",
                quote(value),
                type_of(value),
                tensor::type_name(dtype)
            )));
        }
    }
    Ok(())
}

fn is_base64(value: &Value) -> bool {
    value.as_object().is_some_and(|object| {
        object.len() == 1 && object.get("b64").is_some_and(serde_json::Value::is_string)
    })
}

fn read_base64(value: &Value) -> Result<Vec<u8>, Failure> {
    let text = Some(value).filter(|value| is_base64(value)).and_then(|value| value["b64"].as_str());
    let text = text.ok_or_else(|| quoting(value, "not formatted correctly for base64 data"))?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(text);
    decoded.map_err(|_| Failure::invalid("Unable to base64 decode"))
}

/// The examples of a Classify or Regress.
pub(crate) fn read_examples(document: &Map<String, Value>) -> Result<Input, Failure> {
    let context = document.get("context").map(read_example).transpose()?;
    let quote = |text: &str| quoting(&Value::Object(document.clone()), text);
    let examples = match document.get("examples") {
        None => return Err(quote("When method is classify, key 'examples' is expected and was not found")),
        Some(Value::Array(examples)) if examples.is_empty() => {
            return Err(quote("'examples' value is an empty array"));
        }
        Some(Value::Array(examples)) => examples.iter().map(read_example).collect::<Result<_, _>>()?,
        Some(_) => return Err(quote("Expecting 'examples' value to be an list/array")),
    };
    let kind = match context {
        None => Examples::ExampleList(ExampleList { examples }),
        context => Examples::ExampleListWithContext(ExampleListWithContext { examples, context }),
    };
    Ok(Input { kind: Some(kind) })
}

fn read_example(value: &Value) -> Result<Example, Failure> {
    let Value::Object(object) = value else {
        let found = type_of(value);
        return Err(Failure::invalid(format!("Example must be JSON object but got JSON {found}")));
    };
    let feature = |(name, content): (&String, &Value)| {
        let values = match content {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        Ok((name.clone(), Feature { kind: read_feature(name, values)? }))
    };
    let feature = object.iter().map(feature).collect::<Result<_, Failure>>()?;
    Ok(Example { features: Some(Features { feature }) })
}

fn read_feature(name: &str, values: &[Value]) -> Result<Option<FeatureKind>, Failure> {
    let mut kind = None;
    for value in values {
        let one = match value {
            Value::Bool(flag) => FeatureKind::Int64List(Int64List { value: vec![i64::from(*flag)] }),
            Value::String(text) => FeatureKind::BytesList(BytesList { value: vec![text.clone().into()] }),
            Value::Object(_) if is_base64(value) => {
                FeatureKind::BytesList(BytesList { value: vec![read_base64(value)?.into()] })
            }
            Value::Number(number) => match number.as_i64() {
                Some(number) => FeatureKind::Int64List(Int64List { value: vec![number] }),
                #[expect(clippy::cast_possible_truncation, reason = "the nearest float is what is meant")]
                None => FeatureKind::FloatList(FloatList {
                    value: vec![number.as_f64().unwrap_or(f64::NAN) as f32],
                }),
            },
            other => {
                let found = type_of(other);
                return Err(Failure::invalid(format!(
                    "Feature: {name} has element with unexpected JSON type: {found}"
                )));
            }
        };
        kind = Some(match (kind, one) {
            (None, one) => one,
            (Some(FeatureKind::BytesList(mut list)), FeatureKind::BytesList(one)) => {
                list.value.extend(one.value);
                FeatureKind::BytesList(list)
            }
            (Some(FeatureKind::FloatList(mut list)), FeatureKind::FloatList(one)) => {
                list.value.extend(one.value);
                FeatureKind::FloatList(list)
            }
            (Some(FeatureKind::Int64List(mut list)), FeatureKind::Int64List(one)) => {
                list.value.extend(one.value);
                FeatureKind::Int64List(list)
            }
            (Some(first), _) => {
                let wanted = match first {
                    FeatureKind::BytesList(_) => "bytes",
                    FeatureKind::FloatList(_) => "float",
                    FeatureKind::Int64List(_) => "int64",
                };
                return Err(Failure::invalid(format!(
                    "Unexpected element type in feature: {name} expecting type: {wanted}"
                )));
            }
        });
    }
    Ok(kind)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "Null",
        Value::Bool(false) => "False",
        Value::Bool(true) => "True",
        Value::Number(_) => "Number",
        Value::String(_) => "String",
        Value::Array(_) => "Array",
        Value::Object(_) => "Object",
    }
}

fn quote(value: &Value) -> String {
    let mut text = value.to_string();
    if QUOTED < text.len() {
        let mut end = QUOTED;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

fn quoting(value: &Value, text: &str) -> Failure {
    Failure::invalid(format!("JSON Value: {} {text}", quote(value)))
}
