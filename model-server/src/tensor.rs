//! Tensors as TensorFlow reads them off the wire.

use bytes::Bytes;

use crate::messages::{DataType, TensorProto, TensorShapeProto};

/// More elements than this are refused instead of allocated: a shape on the wire costs its sender nothing.
const MOST_ELEMENTS: usize = 1 << 28;

/// A float tensor out of its values, in `float_val`.
pub fn floats(shape: &[i64], values: Vec<f32>) -> TensorProto {
    TensorProto {
        dtype: DataType::Float.into(),
        tensor_shape: Some(TensorShapeProto::of(shape)),
        float_val: values,
        ..TensorProto::default()
    }
}

/// A float tensor whose values are little-endian `tensor_content`, as numpy's clients send it.
pub fn float_content(shape: &[i64], values: &[f32]) -> TensorProto {
    let content: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto { tensor_content: Bytes::from(content), ..floats(shape, Vec::new()) }
}

/// Why a tensor on the wire is not the float tensor that a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `Tensor::FromProto` fails: no type, a shape that cannot be, content of another length.
    Malformed,
    /// A good tensor of another type.
    Type(DataType),
}

/// The values of a float tensor.
///
/// As `Tensor::FromProto`: content must fit the shape exactly; of typed values the last one is repeated up
/// to the shape's size, and none at all means zeros.
pub fn read_floats(tensor: &TensorProto) -> Result<Vec<f32>, Refused> {
    let dtype = DataType::try_from(tensor.dtype).map_err(|_| Refused::Malformed)?;
    let elements = elements(tensor.tensor_shape.as_ref()).ok_or(Refused::Malformed)?;
    let content = &tensor.tensor_content;
    if dtype != DataType::Float {
        let fits = content.is_empty() || width(dtype).is_none_or(|width| elements * width == content.len());
        return Err(if dtype != DataType::Invalid && fits {
            Refused::Type(dtype)
        } else {
            Refused::Malformed
        });
    }
    if !content.is_empty() {
        let values = content.chunks_exact(4).map(|value| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(value);
            f32::from_le_bytes(bytes)
        });
        return if elements * 4 == content.len() { Ok(values.collect()) } else { Err(Refused::Malformed) };
    }
    let mut values = tensor.float_val.clone();
    let fill = values.last().copied().unwrap_or(0.0);
    values.resize(elements, fill);
    Ok(values)
}

fn elements(shape: Option<&TensorShapeProto>) -> Option<usize> {
    // A tensor without a shape is a scalar.
    let Some(shape) = shape else { return Some(1) };
    if shape.unknown_rank {
        return None;
    }
    let mut elements = 1_usize;
    for dim in &shape.dim {
        elements = elements.checked_mul(usize::try_from(dim.size).ok()?)?;
    }
    (elements <= MOST_ELEMENTS).then_some(elements)
}

/// Bytes of one element in `tensor_content`; none where the length says nothing.
const fn width(dtype: DataType) -> Option<usize> {
    match dtype {
        DataType::Bool | DataType::Int8 | DataType::Uint8 | DataType::Qint8 | DataType::Quint8 => Some(1),
        DataType::Half
        | DataType::Bfloat16
        | DataType::Int16
        | DataType::Uint16
        | DataType::Qint16
        | DataType::Quint16 => Some(2),
        DataType::Float | DataType::Int32 | DataType::Uint32 | DataType::Qint32 => Some(4),
        DataType::Double | DataType::Int64 | DataType::Uint64 | DataType::Complex64 => Some(8),
        DataType::Complex128 => Some(16),
        DataType::Invalid | DataType::String | DataType::Resource | DataType::Variant => None,
    }
}

/// TensorFlow's own name of a type, as its session prints it.
pub const fn type_name(dtype: DataType) -> &'static str {
    match dtype {
        DataType::Invalid => "INVALID",
        DataType::Float => "float",
        DataType::Double => "double",
        DataType::Int32 => "int32",
        DataType::Uint8 => "uint8",
        DataType::Int16 => "int16",
        DataType::Int8 => "int8",
        DataType::String => "string",
        DataType::Complex64 => "complex64",
        DataType::Int64 => "int64",
        DataType::Bool => "bool",
        DataType::Qint8 => "qint8",
        DataType::Quint8 => "quint8",
        DataType::Qint32 => "qint32",
        DataType::Bfloat16 => "bfloat16",
        DataType::Qint16 => "qint16",
        DataType::Quint16 => "quint16",
        DataType::Uint16 => "uint16",
        DataType::Complex128 => "complex128",
        DataType::Half => "half",
        DataType::Resource => "resource",
        DataType::Variant => "variant",
        DataType::Uint32 => "uint32",
        DataType::Uint64 => "uint64",
    }
}

/// The name of a type in a `.proto` file, as JSON and the text format print it.
pub fn dtype_name(dtype: DataType) -> String {
    format!("DT_{}", type_name(dtype).to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tensor: &TensorProto, expected: Result<&[f32], Refused>) {
        assert_eq!(read_floats(tensor).as_deref(), expected.as_ref().copied(), "{tensor:?}");
    }

    #[test]
    fn values_are_read_from_the_typed_field_and_from_little_endian_content() {
        check(&floats(&[2], vec![1.0, -2.5]), Ok(&[1.0, -2.5]));
        check(&float_content(&[2], &[1.0, -2.5]), Ok(&[1.0, -2.5]));
        let content = Bytes::from_static(&[0, 0, 0x80, 0x3f]);
        check(&TensorProto { tensor_content: content, ..floats(&[1], vec![]) }, Ok(&[1.0]));
    }

    #[test]
    fn the_last_typed_value_fills_the_shape() {
        check(&floats(&[3], vec![7.0]), Ok(&[7.0; 3]));
        check(&floats(&[3], vec![1.0, 2.0]), Ok(&[1.0, 2.0, 2.0]));
        check(&floats(&[2], vec![]), Ok(&[0.0; 2]));
        check(&floats(&[1], vec![1.0, 2.0]), Ok(&[1.0]));
    }

    #[test]
    fn a_tensor_without_a_shape_is_a_scalar() {
        check(&TensorProto { tensor_shape: None, ..floats(&[], vec![3.0]) }, Ok(&[3.0]));
        check(&floats(&[], vec![3.0]), Ok(&[3.0]));
        check(&floats(&[0], vec![]), Ok(&[]));
    }

    #[test]
    fn what_cannot_be_a_tensor_is_malformed() {
        check(&float_content(&[3], &[1.0]), Err(Refused::Malformed));
        check(&floats(&[-1], vec![1.0]), Err(Refused::Malformed));
        check(&floats(&[i64::MAX, 8], vec![1.0]), Err(Refused::Malformed));
        check(&floats(&[1 << 40], vec![1.0]), Err(Refused::Malformed));
        check(&TensorProto { dtype: 0, ..floats(&[1], vec![1.0]) }, Err(Refused::Malformed));
        check(&TensorProto { dtype: 999, ..floats(&[1], vec![1.0]) }, Err(Refused::Malformed));
        let shape = TensorShapeProto { unknown_rank: true, dim: Vec::new() };
        check(&TensorProto { tensor_shape: Some(shape), ..floats(&[], vec![1.0]) }, Err(Refused::Malformed));
        let short = TensorProto { dtype: DataType::Double.into(), ..float_content(&[1], &[1.0]) };
        check(&short, Err(Refused::Malformed));
    }

    #[test]
    fn a_good_tensor_of_another_type_is_told_from_a_malformed_one() {
        let double = DataType::Double;
        let tensor = TensorProto { dtype: double.into(), double_val: vec![1.0], ..floats(&[1], vec![]) };
        check(&tensor, Err(Refused::Type(double)));
    }
}
