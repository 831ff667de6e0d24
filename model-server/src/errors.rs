//! TensorFlow Serving's errors: its codes, and its texts to the letter.
//!
//! Proxies and clients tell a missing version from a bad request by these texts, so a server for tests must
//! not paraphrase them.

use std::collections::BTreeSet;

use tonic::Code;

/// An RPC that ends with something other than OK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

/// The server cuts messages at this many bytes.
const LONGEST: usize = 1024;
const CUT: &str = "...TRUNCATED";

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// The message as gRPC sends it: cut when it is too long.
    #[must_use]
    pub fn cut(mut self) -> Self {
        if LONGEST < self.message.len() {
            let mut end = LONGEST;
            while !self.message.is_char_boundary(end) {
                end -= 1;
            }
            self.message.truncate(end);
            self.message.push_str(CUT);
        }
        self
    }

    /// The HTTP status that the REST API answers for this code.
    pub const fn http(&self) -> u16 {
        match self.code {
            Code::Ok => 200,
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            Code::NotFound => 404,
            Code::AlreadyExists | Code::Aborted => 409,
            Code::ResourceExhausted => 429,
            Code::Cancelled => 499,
            Code::Unimplemented => 501,
            Code::Unavailable => 503,
            Code::DeadlineExceeded => 504,
            Code::Unknown | Code::Internal | Code::DataLoss => 500,
        }
    }
}

pub fn missing_model_spec() -> Failure {
    Failure::invalid("Missing ModelSpec")
}

pub fn no_name() -> Failure {
    Failure::invalid("ModelSpec has no name specified.")
}

pub fn no_servable(name: &str, version: Option<i64>) -> Failure {
    let asked = match version {
        None => format!("Latest({name})"),
        Some(version) => format!("Specific({name}, {version})"),
    };
    Failure::new(Code::NotFound, format!("Servable not found for request: {asked}"))
}

pub fn unknown_label(label: &str) -> Failure {
    Failure::invalid(format!("Unrecognized servable version label: {label}"))
}

pub fn no_predict_signature(name: &str) -> Failure {
    Failure::new(Code::FailedPrecondition, format!("Serving signature key \"{name}\" not found."))
}

/// What Classify and Regress say of a signature that the model has not.
pub fn no_example_signature(name: &str) -> Failure {
    Failure::invalid(format!("No signature was found with the name: {name}"))
}

pub fn no_multi_inference_signature(name: &str) -> Failure {
    Failure::invalid(format!("Requested signature not found in model graph: {name}"))
}

/// What the REST API says of a signature before it reads the inputs.
pub fn no_rest_signature(name: &str) -> Failure {
    Failure::invalid(format!("Serving signature name: \"{name}\" not found in signature def"))
}

pub fn input_count(sent: &BTreeSet<&str>, wanted: &BTreeSet<&str>) -> Failure {
    let join = |names: Vec<&str>| names.join(",");
    Failure::invalid(format!(
        "input size does not match signature: {}!={} len({{{}}}) != len({{{}}}). Sent extra: {{{}}}. \
         Missing but required: {{{}}}.",
        sent.len(),
        wanted.len(),
        join(sent.iter().copied().collect()),
        join(wanted.iter().copied().collect()),
        join(sent.difference(wanted).copied().collect()),
        join(wanted.difference(sent).copied().collect()),
    ))
}

pub fn input_missing(alias: &str, feed: &str, sent: &BTreeSet<&str>) -> Failure {
    let sent: Vec<&str> = sent.iter().copied().collect();
    Failure::invalid(format!(
        "Signature input alias: {alias}(feed name: {feed}) not found in request and no default value \
         provided. Inputs expected to be in the request {{{}}}, or default input alias set: ",
        sent.join(",")
    ))
}

pub fn tensor_parsing(alias: &str) -> Failure {
    Failure::invalid(format!("tensor parsing error: {alias}"))
}

/// What a session says of a feed of another type, by TensorFlow's names of types.
pub fn wrong_type(wanted: &str, provided: &str) -> Failure {
    Failure::invalid(format!("Expects arg[0] to be {wanted} but {provided} is provided"))
}

pub fn unknown_output(alias: &str, outputs: &[&str]) -> Failure {
    Failure::invalid(format!(
        "output tensor alias not found in signature: {alias} Outputs expected to be in the set {{{}}}.",
        outputs.join(",")
    ))
}

pub fn duplicate_output(alias: &str) -> Failure {
    Failure::invalid(format!("duplicate output tensor alias: {alias}"))
}

pub fn empty_input() -> Failure {
    Failure::invalid("Input is empty.")
}

/// A signature that takes no examples, or gives nothing that `what` can answer.
pub fn not_for_examples(message: &str, signature: &str) -> Failure {
    Failure::invalid(format!("{message}{signature}"))
}

pub fn task_without_name() -> Failure {
    Failure::invalid("Found ModelSpec with an empty model name.")
}

pub fn tasks_of_two_models() -> Failure {
    Failure::invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
}

pub fn duplicate_task(signature: &str) -> Failure {
    Failure::invalid(format!("Duplicate evaluation of signature: {signature}"))
}

pub fn unsupported_task(method: &str) -> Failure {
    Failure::new(Code::Unimplemented, format!("Unsupported signature method_name: {method}"))
}

pub fn no_metadata_field() -> Failure {
    Failure::invalid("GetModelMetadataRequest must specify at least one metadata_field")
}

pub fn unknown_metadata_field(field: &str) -> Failure {
    Failure::invalid(format!("Metadata field {field} is not supported"))
}

pub fn no_version_status(name: &str, version: i64) -> Failure {
    Failure::new(Code::NotFound, format!("Could not find version {version} of model {name}"))
}

pub fn no_model_status(name: &str) -> Failure {
    Failure::new(Code::NotFound, format!("Could not find any versions of model {name}"))
}

/// A body that is no message of the method's type: grpc++ answers INTERNAL and says nothing.
pub fn undecodable() -> Failure {
    Failure::new(Code::Internal, "")
}
