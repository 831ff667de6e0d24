//! The only parser of operator input: plugin configuration text to a [`Policy`].

use crate::policy::Policy;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where, in the operator's own spelling: `models[0].routes[3].split[1].target`. Empty for the whole.
    pub path: String,
    /// What was found, what was wanted, and a near name where there is one.
    pub problem: String,
}

/// Reads a plugin configuration.
///
/// # Errors
///
/// Every error of the text at once, in the order in which they stand in it; a text that is not JSON has one.
pub fn parse(text: &str) -> Result<Policy, Vec<ConfigError>> {
    let _ = text;
    Err(vec![])
}
