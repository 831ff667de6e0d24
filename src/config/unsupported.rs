//! What is read and checked but not done yet: it is refused, so that no setting is silently without effect.

use super::at::At;
use super::json::Value;

pub fn refuse(root: At<'_>) {
    refuse_any(root.key("concurrency"));
    refuse_filled(root.key("rate_limits"));
    refuse_word(root.key("metrics").and_then(|it| it.key("histograms")), "model");
    for model in root.key("models").into_iter().flat_map(At::children) {
        refuse_any(model.key("concurrency"));
        refuse_any(model.key("outlier_detection"));
        refuse_filled(model.key("rate_limits"));
        for route in model.key("routes").into_iter().flat_map(At::children) {
            refuse_any(route.key("guard"));
        }
    }
}

fn refuse_any(at: Option<At<'_>>) {
    if let Some(at) = at {
        at.report("not yet supported");
    }
}

/// An empty list asks for nothing.
fn refuse_filled(at: Option<At<'_>>) {
    refuse_any(at.filter(|at| at.children().next().is_some()));
}

fn refuse_word(at: Option<At<'_>>, word: &str) {
    refuse_any(at.filter(|at| matches!(at.value(), Value::Text(text) if text == word)));
}
