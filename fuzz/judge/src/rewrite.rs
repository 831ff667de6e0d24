//! Messages whose identity was rewritten on the way, as the server must read them.

use predictgate::identity::{Layout, ModelSpec, splice};
use predictgate::policy::Rewrite;
use predictgate::units::{Asked, Version};

use crate::dice::Dice;
use crate::judge::Difference;
use crate::message::Message;
use crate::scan;

/// A message with a field spliced in, and what it must be read as.
pub struct Rewritten {
    pub message: Message,
    expected: ModelSpec,
}

/// Rewrites an accepted message; none where it cannot be, or where it goes on to name an identity and is refused.
pub fn rewritten(message: &Message, dice: &mut Dice) -> Option<Rewritten> {
    let body = scan::framed(message);
    let mut scanner = scan::scanner(message);
    scanner.feed(&body).ok()?;
    let rewrite = draw(message.layout, dice);
    let (layout, at) = scanner.splice_point()?;
    let field = splice::field(layout, &rewrite)?;
    scanner.rewritten();
    if scanner.contradicted() {
        return None;
    }
    let spliced = splice::splice(&body, at, &field)?;
    let bytes = spliced.get(splice::PREFIX..)?.to_vec();
    let mut expected = scanner.merged().clone();
    expected.name = rewrite.model.map_or(expected.name, Into::into);
    expected.asked = rewrite.asked.unwrap_or(expected.asked);
    expected.signature = rewrite.signature.map_or(expected.signature, Into::into);
    Some(Rewritten { message: Message { layout, bytes }, expected })
}

impl Rewritten {
    /// # Errors
    ///
    /// What libprotobuf reads, when it is not what the rewrite says.
    pub fn compare(&self, oracle: Option<&ModelSpec>) -> Result<(), Difference> {
        if oracle == Some(&self.expected) {
            return Ok(());
        }
        let found = format!("{} is read as {oracle:?}, not {:?}", self.message, self.expected);
        Err(Difference { demand: "what the rewrite asks for", found })
    }
}

fn draw(layout: Layout, dice: &mut Dice) -> Rewrite {
    let text = |dice: &mut Dice| dice.pick(&["b", "bert", "模型", "resnet"]).into();
    let asked = match (dice.below(3), layout) {
        (0, _) => None,
        (1, Layout::NameAndVersion) => Some(Asked::Version(Version::Text("v2".into()))),
        (1, _) => Some(Asked::Label(text(dice))),
        _ => Some(Asked::Version(Version::Number(dice.pick(&[0, 1, 2, -1, i64::MAX])))),
    };
    let signature = layout == Layout::ModelSpec && dice.one_in(3);
    Rewrite { model: dice.one_in(2).then(|| text(dice)), asked, signature: signature.then(|| text(dice)) }
}
