//! The signatures of every model here: those of TensorFlow Serving's half_plus_two, and one more for Predict.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::LazyLock;

use crate::messages::{DataType, SignatureDef, TensorInfo, TensorShapeProto};
use crate::tensor;

pub const DEFAULT: &str = "serving_default";
pub const PREDICT: &str = "tensorflow/serving/predict";
pub const CLASSIFY: &str = "tensorflow/serving/classify";
pub const REGRESS: &str = "tensorflow/serving/regress";

/// The signatures by name.
pub static SIGNATURES: LazyLock<BTreeMap<String, SignatureDef>> = LazyLock::new(|| {
    let x = info("x:0", DataType::Float, &[]);
    let y = info("y:0", DataType::Float, &[]);
    let examples = info("tf_example:0", DataType::String, &[-1]);
    let scores = info("ye:0", DataType::Float, &[-1, 1]);
    let classes = info("classes:0", DataType::String, &[-1, 1]);
    let classify = [("scores", scores.clone()), ("classes", classes)];
    BTreeMap::from([
        (DEFAULT.to_owned(), signature(PREDICT, [("x", x.clone())], [("y", y.clone())])),
        // The default under a name of its own, so that a Predict can choose between two.
        ("predict_x_to_y".to_owned(), signature(PREDICT, [("x", x)], [("y", y)])),
        (
            "regress_x_to_y".to_owned(),
            signature(REGRESS, [("inputs", examples.clone())], [("outputs", scores)]),
        ),
        ("classify_x_to_y".to_owned(), signature(CLASSIFY, [("inputs", examples)], classify)),
    ])
});

/// The name that is looked up when a request names none.
pub fn name_or_default(name: &str) -> &str {
    if name.is_empty() { DEFAULT } else { name }
}

fn signature<const I: usize, const O: usize>(
    method: &str,
    inputs: [(&str, TensorInfo); I],
    outputs: [(&str, TensorInfo); O],
) -> SignatureDef {
    let named = |(name, info): (&str, TensorInfo)| (name.to_owned(), info);
    SignatureDef {
        inputs: inputs.into_iter().map(named).collect(),
        outputs: outputs.into_iter().map(named).collect(),
        method_name: method.to_owned(),
    }
}

/// No sizes mean an unknown rank.
fn info(name: &str, dtype: DataType, sizes: &[i64]) -> TensorInfo {
    let shape = TensorShapeProto { unknown_rank: sizes.is_empty(), ..TensorShapeProto::of(sizes) };
    TensorInfo { name: name.to_owned(), dtype: dtype.into(), tensor_shape: Some(shape) }
}

/// The text format of a signature, which some errors end with.
pub fn text(signature: &SignatureDef) -> String {
    let mut text = String::new();
    for (field, infos) in [("inputs", &signature.inputs), ("outputs", &signature.outputs)] {
        for (key, info) in infos {
            let dtype = tensor::dtype_name(info.dtype());
            let _ = write!(text, "{field} {{\n  key: \"{key}\"\n  value {{\n    name: \"{}\"\n", info.name);
            let _ = write!(text, "    dtype: {dtype}\n    tensor_shape {{\n");
            let shape = info.tensor_shape.clone().unwrap_or_default();
            for dim in &shape.dim {
                let _ = write!(text, "      dim {{\n        size: {}\n      }}\n", dim.size);
            }
            if shape.unknown_rank {
                text.push_str("      unknown_rank: true\n");
            }
            text.push_str("    }\n  }\n}\n");
        }
    }
    let _ = writeln!(text, "method_name: \"{}\"", signature.method_name);
    text
}
