//! What the pieces of a request's body decide.

use super::bill::{Extent, Shown};
use super::decide::{Destination, Request};
use super::{Decision, Exchange, IdentityResult, Pending, Stage, Why, World, forward};
use crate::hold::Place;
use crate::identity::{Malformed, Progress, Scanner};
use crate::policy::{Policy, Rewrite};
use crate::verdict::{Forward, Reason, Verdict};

/// A piece of a request's body. While a request is held, each piece begins where the first one did.
pub struct Body<'a> {
    pub length: usize,
    /// `read(offset, most)` gives at most so many bytes from an offset, and at least one where there are any.
    pub read: &'a mut dyn FnMut(usize, usize) -> Option<Vec<u8>>,
}

impl Exchange {
    /// The headers wait for the identity at a place, and so many bytes of the body were read.
    pub(super) fn held_body(
        &mut self,
        world: &mut World<'_>,
        mut pending: Pending,
        (read, place): (usize, Place),
        body: &mut Body<'_>,
        ends: bool,
    ) -> Verdict {
        let policy = world.policy;
        let most = policy.identity.max_peek_bytes as usize;
        let peek = body.length.min(most);
        if let Err(malformed) = follow(&mut pending.scanner, body, read, peek) {
            return self.malformed(malformed);
        }
        if pending.scanner.progress() == Progress::Reading {
            if body.length >= most {
                return self.unknown(policy, "no model within the first bytes of the message");
            }
            if ends {
                return self.without_identity(policy, &pending.scanner);
            }
            self.stage = Stage::Held { pending, read: peek, place };
            return Verdict::Hold;
        }
        // Everything that is there is read before the decision, so that what is refused spends no token.
        if let Err(verdict) = self.read_on(policy, &mut pending.scanner, body, peek, ends) {
            return verdict;
        }
        let destination = match self.by_body(world, &pending, false) {
            Ok(destination) => destination,
            Err(verdict) => return verdict,
        };
        let forward = destination.map(forward::to).unwrap_or_default();
        match destination.and_then(|it| it.target.rewrite.as_ref()) {
            Some(rewrite) => self.rewrite(forward, pending.scanner, rewrite, body, ends),
            None => self.forward(forward, pending.scanner, ends),
        }
    }

    /// The headers have gone on, so that no cluster can be chosen any more. A refusal still can, and what is asked
    /// can be rewritten until the first piece has gone on, too.
    pub(super) fn late_body(
        &mut self,
        world: &mut World<'_>,
        mut pending: Pending,
        read: usize,
        body: &mut Body<'_>,
        ends: bool,
    ) -> Verdict {
        if let Err(verdict) = self.read_on(world.policy, &mut pending.scanner, body, 0, ends) {
            return verdict;
        }
        if pending.scanner.progress() == Progress::Reading {
            if ends {
                return self.without_identity(world.policy, &pending.scanner);
            }
            self.stage = Stage::Late { pending, read: read.saturating_add(body.length) };
            return Verdict::PASS;
        }
        let rewrite = match self.by_body(world, &pending, true) {
            Ok(destination) => destination.and_then(|it| it.target.rewrite.as_ref()),
            Err(verdict) => return verdict,
        };
        if let Some(decision) = &mut self.decision {
            *decision = Decision { target: None, route: None, why: Why::Late, ..*decision };
        }
        // Nobody knows which target the headers have gone on to.
        self.sent = None;
        match rewrite {
            None => self.forward(Forward::default(), pending.scanner, ends),
            Some(_) if read > 0 => self.reply(forward::late_identity()),
            Some(_) if forward::declares_length(&pending.headers) => self.reply(forward::declared_length()),
            Some(rewrite) => self.rewrite(Forward::default(), pending.scanner, rewrite, body, ends),
        }
    }

    /// The headers have gone on to a target that is to be asked something else than what the message says.
    pub(super) fn rewrite_body(
        &mut self,
        world: &mut World<'_>,
        mut scanner: Box<Scanner>,
        rewrite: &Rewrite,
        body: &mut Body<'_>,
        ends: bool,
    ) -> Verdict {
        if let Err(verdict) = self.read_and_settle(world, &mut scanner, body, ends) {
            return verdict;
        }
        match scanner.progress() {
            Progress::Reading if ends => self.without_identity(world.policy, &scanner),
            Progress::Reading => self.reply(forward::late_identity()),
            Progress::Settled | Progress::Unreadable(_) => {
                self.rewrite(Forward::default(), scanner, rewrite, body, ends)
            }
        }
    }

    /// Everything is decided: the rest of the body must not contradict it.
    pub(super) fn follow(
        &mut self,
        world: &mut World<'_>,
        mut scanner: Box<Scanner>,
        body: &mut Body<'_>,
        ends: bool,
    ) -> Verdict {
        match self.read_and_settle(world, &mut scanner, body, ends) {
            Ok(()) => self.forward(Forward::default(), scanner, ends),
            Err(verdict) => verdict,
        }
    }

    /// Shows the scanner a piece of the body, and spends what it shows of the request.
    fn read_and_settle(
        &mut self,
        world: &mut World<'_>,
        scanner: &mut Scanner,
        body: &mut Body<'_>,
        ends: bool,
    ) -> Result<(), Verdict> {
        self.read_on(world.policy, scanner, body, 0, ends)?;
        self.settle(world, shown(scanner))
    }

    /// Shows the scanner the body from an offset on, and refuses what it finds wrong.
    fn read_on(
        &mut self,
        policy: &Policy,
        scanner: &mut Scanner,
        body: &mut Body<'_>,
        from: usize,
        ends: bool,
    ) -> Result<(), Verdict> {
        let length = body.length;
        let read = follow(scanner, body, from, length);
        // What ends before its identity is known is told apart later.
        let whole = !ends || scanner.progress() == Progress::Reading;
        if let Err(malformed) = read.and_then(|()| if whole { Ok(()) } else { scanner.end() }) {
            return Err(self.malformed(malformed));
        }
        if scanner.contradicted() {
            return Err(self.contradicted());
        }
        match scanner.progress() {
            Progress::Unreadable(why) => Err(self.unreadable(policy, why)),
            Progress::Reading | Progress::Settled => Ok(()),
        }
    }

    /// Decides by what the scanner has read.
    fn by_body<'p>(
        &mut self,
        world: &mut World<'p>,
        pending: &Pending,
        is_late: bool,
    ) -> Result<Option<Destination<'p>>, Verdict> {
        let spec = pending.scanner.spec();
        if spec.name.is_empty() {
            return match self.unknown(world.policy, "the message names no model") {
                // What passes unnamed may not name a model further on.
                Verdict::Forward(_) => Ok(None),
                refusal => Err(refusal),
            };
        }
        self.identity = IdentityResult::Body;
        let Pending { headers, method, scanner } = pending;
        self.decide(world, Request { headers, method: *method, spec, shown: shown(scanner), is_late })
    }

    fn rewrite(
        &mut self,
        forward: Forward,
        mut scanner: Box<Scanner>,
        rewrite: &Rewrite,
        body: &mut Body<'_>,
        ends: bool,
    ) -> Verdict {
        match forward::with_message(forward, &mut scanner, body, rewrite) {
            Err(reply) => self.reply(reply),
            Ok(_) if scanner.contradicted() => self.contradicted(),
            Ok(forward) => self.forward(forward, scanner, ends),
        }
    }

    fn forward(&mut self, forward: Forward, scanner: Box<Scanner>, ends: bool) -> Verdict {
        if !ends {
            self.stage = Stage::Following(scanner);
        }
        Verdict::Forward(forward)
    }

    fn contradicted(&mut self) -> Verdict {
        self.refuse(
            Reason::ContradictingModelSpec,
            "the message names another model, version, label or signature than the one that was routed",
        )
    }

    /// The body has ended before the identity was known.
    fn without_identity(&mut self, policy: &Policy, scanner: &Scanner) -> Verdict {
        match scanner.end() {
            Ok(()) => self.unknown(policy, "the call has no message"),
            Err(malformed) => self.malformed(malformed),
        }
    }
}

fn shown(scanner: &Scanner) -> Shown {
    let (examples, bytes) = scanner.sizes();
    let all = Extent { examples: scanner.examples().max(1), bytes: scanner.bytes() };
    Shown { all, message: Extent { examples, bytes } }
}

/// Lets the scanner see the body from one offset to another.
fn follow(scanner: &mut Scanner, body: &mut Body<'_>, from: usize, to: usize) -> Result<(), Malformed> {
    scanner.follow(to.saturating_sub(from), |at, most| (body.read)(from.saturating_add(at), most))
}
