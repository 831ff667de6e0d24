//! What a request owes to the limits that apply to it.
//!
//! A request costs what is known of it when it is decided; what its body shows later, such as another input with a
//! larger batch, is spent when it shows. A server has no complete message until the last of that is paid.

use std::time::Duration;

use crate::host::Host;
use crate::key::{self, Caller};
use crate::matching::Subject;
use crate::policy::{Limit, Model, Policy};
use crate::rate_limit::{Admission, Cost, LimitId, Limiter, Refusal, Spend, Why};
use crate::units::{Instant, Mode};
use crate::verdict::{Exceeded, LocalReply, Reason, escape};

/// What there is to count, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The leading dimension of the inputs, the largest; one where none is known.
    pub examples: u64,
    pub bytes: u64,
}

impl Extent {
    const fn of(self, cost: Cost) -> u64 {
        match cost {
            Cost::Request => 1,
            Cost::Batch => self.examples,
            Cost::Bytes => self.bytes,
        }
    }
}

/// What a request has shown of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Of all messages together.
    pub all: Extent,
    /// Of the current message, the only one unless the request is a stream.
    pub message: Extent,
}

impl Shown {
    /// What a request of one message has shown.
    pub const fn once(message: Extent) -> Self {
        Self { all: message, message }
    }
}

/// The limits that apply to one request, and what it has spent.
#[derive(Clone, Debug, Default)]
pub struct Bill {
    keys: Vec<u8>,
    items: Vec<Item>,
    spent: Option<Extent>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    limit: LimitId,
    cost: Cost,
    /// Where its key ends; it begins where the one before it ends.
    key_end: usize,
}

/// What a bill is settled with.
pub struct Till<'w> {
    pub limits: &'w mut Limiter,
    pub policy: &'w Policy,
    pub host: &'w dyn Host,
    pub now: Instant,
}

impl Bill {
    /// Begins anew.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.items.clear();
        self.spent = None;
    }

    /// Adds the limits of the model and then those of all models.
    pub fn add(&mut self, model: Option<&Model>, top: &[Limit], subject: Subject<'_>, caller: &Caller<'_>) {
        for limit in model.map_or(&[][..], |model| &model.rate_limits).iter().chain(top) {
            if limit.matcher.holds(subject) {
                if !limit.by.is_empty() {
                    key::read(&limit.by, caller, &mut self.keys);
                }
                self.items.push(Item { limit: limit.id, cost: limit.rate.cost, key_end: self.keys.len() });
            }
        }
    }

    /// Whether the body may make it longer.
    pub fn grows(&self) -> bool {
        self.items.iter().any(|item| item.cost != Cost::Request)
    }

    /// Spends what is not spent yet, from all limits or from none.
    pub fn settle(&mut self, till: &mut Till<'_>, shown: Shown) -> Result<(), LocalReply> {
        let extent = shown.all;
        if self.items.is_empty() || self.spent == Some(extent) {
            return Ok(());
        }
        if self.spent.is_some()
            && let Some(refusal) = self.never(till, shown.message)
        {
            return Err(refusal);
        }
        let host = till.host;
        let admission = till.limits.admit(host.store(), till.now, &|| host.now(), self.owed(extent));
        if let Admission::Refused(refusal) = admission {
            let refused = self.owed(extent).find(|spend| spend.limit == refusal.limit);
            return Err(reply(till, refusal, refused.map_or(1, |spend| spend.cost)));
        }
        self.spent = Some(extent);
        Ok(())
    }

    /// The refusal of a message that has come to cost more than a limit ever lets pass, although each part of it that was
    /// spent could have passed.
    fn never(&self, till: &Till<'_>, message: Extent) -> Option<LocalReply> {
        self.items.iter().find_map(|item| {
            let cost = message.of(item.cost);
            let (_, limit) = till.policy.limit(item.limit)?;
            let quota = till.limits.quota(item.limit)?;
            let refuses = limit.rate.mode == Mode::Enforce && quota.tokens < cost;
            let refusal = Refusal {
                limit: item.limit,
                why: Why::NeverSatisfiable,
                remaining: 0,
                full_in: Duration::ZERO,
            };
            refuses.then(|| reply(till, refusal, cost))
        })
    }

    fn owed(&self, extent: Extent) -> impl Iterator<Item = Spend<'_>> + Clone {
        let mut start = 0_usize;
        self.items.iter().filter_map(move |item| {
            let key = self.keys.get(start..item.key_end).unwrap_or_default();
            start = item.key_end;
            let before = self.spent.map_or(0, |spent| spent.of(item.cost));
            let cost = extent.of(item.cost).saturating_sub(before);
            (cost > 0).then_some(Spend { limit: item.limit, key, cost })
        })
    }
}

fn reply(till: &Till<'_>, refusal: Refusal, cost: u64) -> LocalReply {
    let Refusal { limit, why, remaining, .. } = refusal;
    let quota = till.limits.quota(limit);
    let (tokens, window) = quota.map_or((0, Duration::ZERO), |quota| (quota.tokens, quota.window));
    let name = till.policy.limit(limit).map(|(_, limit)| limit.rate.name.clone()).unwrap_or_default();
    let shown = escape(&name);
    let (message, retry_after) = match why {
        Why::Exhausted { retry_after } => (
            format!("limit {shown} has {remaining} of {tokens} left and this costs {cost}"),
            Some(retry_after),
        ),
        Why::NeverSatisfiable => (
            format!("this costs {cost}, more than the {tokens} that limit {shown} ever lets pass at once"),
            None,
        ),
        Why::Unavailable => (format!("limit {shown} could not be counted"), Some(Duration::ZERO)),
    };
    let exceeded = Exceeded { name, quota: tokens, window, remaining, retry_after };
    LocalReply { limit: Some(Box::new(exceeded)), ..LocalReply::new(Reason::RateLimited, message) }
}
