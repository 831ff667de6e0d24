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
    let path = str::from_utf8(path).ok()?.strip_prefix('/')?;
    let (service, method) = path.split_once('/')?;
    match service {
        "tensorflow.serving.PredictionService" => prediction(method),
        "tensorflow.serving.ModelService" => match method {
            "GetModelStatus" => Some(model_spec(Method::GetModelStatus)),
            "HandleReloadConfigRequest" => Some(Known::Administrative),
            _ => None,
        },
        "tensorflow.serving.SessionService" => {
            (method == "SessionRun").then(|| model_spec(Method::SessionRun))
        }
        "inference.GRPCInferenceService" => inference(method),
        _ => None,
    }
}

const fn model_spec(method: Method) -> Known {
    Known::Model { method, layout: Layout::ModelSpec, rpc: Rpc::Unary }
}

fn prediction(method: &str) -> Option<Known> {
    Some(match method {
        "Predict" => model_spec(Method::Predict),
        "Classify" => model_spec(Method::Classify),
        "Regress" => model_spec(Method::Regress),
        "GetModelMetadata" => model_spec(Method::GetModelMetadata),
        "MultiInference" => {
            Known::Model { method: Method::MultiInference, layout: Layout::FirstTask, rpc: Rpc::Unary }
        }
        _ => return None,
    })
}

fn inference(name: &str) -> Option<Known> {
    let method = match name {
        "ModelInfer" => Method::ModelInfer,
        "ModelStreamInfer" => Method::ModelStreamInfer,
        "ModelReady" => Method::ModelReady,
        "ModelMetadata" => Method::ModelMetadata,
        "ModelConfig" => Method::ModelConfig,
        "ModelStatistics" => Method::ModelStatistics,
        "RepositoryIndex"
        | "RepositoryModelLoad"
        | "RepositoryModelUnload"
        | "SystemSharedMemoryStatus"
        | "SystemSharedMemoryRegister"
        | "SystemSharedMemoryUnregister"
        | "CudaSharedMemoryStatus"
        | "CudaSharedMemoryRegister"
        | "CudaSharedMemoryUnregister"
        | "TraceSetting"
        | "LogSettings" => return Some(Known::Administrative),
        _ => return None,
    };
    let rpc = if method == Method::ModelStreamInfer { Rpc::Streaming } else { Rpc::Unary };
    Some(Known::Model { method, layout: Layout::NameAndVersion, rpc })
}
