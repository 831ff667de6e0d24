//! What is read and checked but not done yet: it is refused, so that no setting is silently without effect.

use super::at::At;

pub fn refuse(root: At<'_>) {
    refuse_any(root.key("concurrency"));
    for model in root.key("models").into_iter().flat_map(At::children) {
        refuse_any(model.key("concurrency"));
    }
}

fn refuse_any(at: Option<At<'_>>) {
    if let Some(at) = at {
        at.report("not yet supported");
    }
}
