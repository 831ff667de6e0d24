//! The gRPC methods of model servers, by their full path.

use crate::identity::{Layout, Rpc};
use crate::method::Method;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Model { method: Method, layout: Layout, rpc: Rpc },
    Administrative,
}

/// What `path` calls, if it is known. Servers compare paths to the letter, so this does too.
pub fn find(path: &[u8]) -> Option<Known> {
    const PREDICTION: &[u8] = b"/tensorflow.serving.PredictionService/";
    const MODEL: &[u8] = b"/tensorflow.serving.ModelService/";
    const INFERENCE: &[u8] = b"/inference.GRPCInferenceService/";
    const RUN: &[u8] = b"/tensorflow.serving.SessionService/SessionRun";
    if let Some(method) = path.strip_prefix(PREDICTION) {
        prediction(method)
    } else if let Some(method) = path.strip_prefix(INFERENCE) {
        inference(method)
    } else if let Some(method) = path.strip_prefix(MODEL) {
        match method {
            b"GetModelStatus" => Some(model_spec(Method::GetModelStatus)),
            b"HandleReloadConfigRequest" => Some(Known::Administrative),
            _ => None,
        }
    } else {
        (path == RUN).then(|| model_spec(Method::SessionRun))
    }
}

const fn model_spec(method: Method) -> Known {
    Known::Model { method, layout: Layout::ModelSpec, rpc: Rpc::Unary }
}

fn prediction(method: &[u8]) -> Option<Known> {
    Some(match method {
        b"Predict" => model_spec(Method::Predict),
        b"Classify" => model_spec(Method::Classify),
        b"Regress" => model_spec(Method::Regress),
        b"GetModelMetadata" => model_spec(Method::GetModelMetadata),
        b"MultiInference" => {
            Known::Model { method: Method::MultiInference, layout: Layout::FirstTask, rpc: Rpc::Unary }
        }
        _ => return None,
    })
}

#[inline(never)]
fn inference(name: &[u8]) -> Option<Known> {
    let method = match name {
        b"ModelInfer" => Method::ModelInfer,
        b"ModelStreamInfer" => Method::ModelStreamInfer,
        b"ModelReady" => Method::ModelReady,
        b"ModelMetadata" => Method::ModelMetadata,
        b"ModelConfig" => Method::ModelConfig,
        b"ModelStatistics" => Method::ModelStatistics,
        b"RepositoryIndex"
        | b"RepositoryModelLoad"
        | b"RepositoryModelUnload"
        | b"SystemSharedMemoryStatus"
        | b"SystemSharedMemoryRegister"
        | b"SystemSharedMemoryUnregister"
        | b"CudaSharedMemoryStatus"
        | b"CudaSharedMemoryRegister"
        | b"CudaSharedMemoryUnregister"
        | b"TraceSetting"
        | b"LogSettings" => return Some(Known::Administrative),
        _ => return None,
    };
    let rpc = if method == Method::ModelStreamInfer { Rpc::Streaming } else { Rpc::Unary };
    Some(Known::Model { method, layout: Layout::NameAndVersion, rpc })
}
