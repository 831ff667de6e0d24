//! The configuration parser: it refuses or accepts whatever the text, and says where.

use predictgate::config::{self, ConfigError};

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let parsed = config::parse(&text);
    let checked = config::parse_all(&text);
    if let Err(errors) = &checked {
        tell(errors);
        assert!(parsed.is_err(), "what is wrong is wrong however much is supported");
    }
    if let Err(errors) = &parsed {
        tell(errors);
    }
}

fn tell(errors: &[ConfigError]) {
    assert!(!errors.is_empty(), "a refusal says why");
    for error in errors {
        assert!(!error.problem.is_empty(), "{error:?} does not say what is wrong");
        assert!(error.to_string().ends_with(&error.problem));
    }
}
