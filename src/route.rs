//! Which model a name means, and which of its routes takes a request.

use hashbrown::HashMap;

use crate::matching::{Match, Subject};
use crate::units::{ModelId, RouteId};

/// Finds models by name: an exact name before the longest prefix.
///
/// A look-up costs one hash for the name and one for each distinct length of the prefixes,
/// however many models there are.
#[derive(Clone, Debug, Default)]
pub struct Names {
    exact: HashMap<Box<str>, ModelId>,
    prefixes: HashMap<Box<str>, ModelId>,
    /// The lengths of the prefixes, without repetition, the longest first.
    lengths: Vec<usize>,
}

/// Two models have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub by: ModelId,
}

impl Names {
    /// Adds a name as configured: exact, or a prefix that ends in `*`.
    ///
    /// # Errors
    ///
    /// Refuses a name that another model has.
    pub fn add(&mut self, name: &str, model: ModelId) -> Result<(), Taken> {
        let taken = match name.strip_suffix('*') {
            None => self.exact.insert(name.into(), model),
            Some(prefix) => {
                if let Err(place) = self.lengths.binary_search_by(|length| prefix.len().cmp(length)) {
                    self.lengths.insert(place, prefix.len());
                }
                self.prefixes.insert(prefix.into(), model)
            }
        };
        taken.map_or(Ok(()), |by| Err(Taken { by }))
    }

    pub fn find(&self, name: &str) -> Option<ModelId> {
        self.exact.get(name).copied().or_else(|| {
            self.lengths.iter().find_map(|&length| self.prefixes.get(name.get(..length)?)).copied()
        })
    }
}

/// The first of `routes` that takes the request.
pub fn first<'a>(routes: impl IntoIterator<Item = &'a Match>, subject: Subject<'_>) -> Option<RouteId> {
    let mut last = None;
    let place = routes.into_iter().position(|matcher| matcher.holds_beside(subject, &mut last))?;
    u16::try_from(place).ok().map(RouteId)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn check(names: &[&str], asked: &str, expected: Option<usize>) {
        let mut index = Names::default();
        for (place, name) in names.iter().enumerate() {
            index.add(name, ModelId(u32::try_from(place).unwrap())).unwrap();
        }
        let found = index.find(asked).map(|model| model.0 as usize);
        assert_eq!(found, expected, "{asked} in {names:?}");
    }

    #[test]
    fn an_exact_name_comes_before_the_longest_prefix() {
        let names = ["bert-*", "bert-large", "bert-large-*", "*"];
        check(&names, "bert-large", Some(1));
        check(&names, "bert-large-v2", Some(2));
        check(&names, "bert-tiny", Some(0));
        check(&names, "resnet", Some(3));
        check(&names, "", Some(3));
        check(&names[..3], "resnet", None);
        check(&names[..3], "bert", None);
    }

    #[test]
    fn a_prefix_is_never_cut_inside_a_character() {
        check(&["ab*", "é*"], "aé", None);
        check(&["ab*", "é*"], "ééé", Some(1));
    }

    #[test]
    fn a_name_belongs_to_one_model() {
        let mut names = Names::default();
        assert_eq!(names.add("a*", ModelId(0)), Ok(()));
        assert_eq!(names.add("a", ModelId(1)), Ok(()));
        assert_eq!(names.add("a*", ModelId(2)), Err(Taken { by: ModelId(0) }));
    }
}
