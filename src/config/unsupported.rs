//! What is read and checked but not done yet: it is refused, so that no setting is silently without effect.

use super::at::At;
use super::json::Value;

pub fn refuse(root: At<'_>) {
    refuse_any(root.key("concurrency"));
    refuse_word(root.key("metrics").and_then(|it| it.key("histograms")), "model");
    for model in root.key("models").into_iter().flat_map(At::children) {
        refuse_any(model.key("concurrency"));
    }
}

fn refuse_any(at: Option<At<'_>>) {
    if let Some(at) = at {
        at.report("not yet supported");
    }
}

fn refuse_word(at: Option<At<'_>>, word: &str) {
    refuse_any(at.filter(|at| matches!(at.value(), Value::Text(text) if text == word)));
}
