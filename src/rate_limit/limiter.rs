//! All limits of one configuration, as one worker has them.
//!
//! A request spends from several limits, from all or from none. First every limit is looked at as far as this
//! worker knows it: a lease that has enough, or a bucket that was just seen empty. Most requests are decided
//! by that, without a call of the host. Only then debits are made, and what was debited is given back when a
//! later limit refuses.

use super::account::Account;
use super::accounts::{Accounts, At, Holder};
use super::gcra::{Gcra, Refused, Tat};
use super::limit::{Buckets, Counts, Limit, Made, NotMade, Workplace};
use super::secret::{Reach, Secret};
use super::slots::Seat;
use super::{OnError, RateLimit};
use crate::arena::Arena;
use crate::store::SharedStore;
use crate::units::{Instant, Mode};
use std::borrow::Borrow;
use std::time::Duration;

/// Entries that one tick looks at. With a tick every 100 ms, all that an arena has are looked at every 26
/// seconds.
const TOUCHED_PER_TICK: usize = 32;

/// The place of a limit among those of a [`Limiter`], in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitId(pub u32);

/// What a request would take out of one bucket.
#[derive(Clone, Copy, Debug)]
pub struct Spend<'a> {
    pub limit: LimitId,
    /// Whose bucket it is; empty for a limit that has only one.
    pub key: &'a [u8],
    /// In tokens. A cost of zero takes nothing and is never refused.
    pub cost: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    Refused(Refusal),
}

/// A refusal, with what the caller is to be told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The first limit that refused.
    pub limit: LimitId,
    pub why: Why,
    /// Tokens that are left, fewer than were asked for.
    pub remaining: u64,
    /// When the bucket is full again, if nobody spends from it.
    pub full_in: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The bucket has too few tokens. It has enough after this time, if nobody else spends in between.
    Exhausted { retry_after: Duration },
    /// The cost is more than the bucket ever holds.
    NeverSatisfiable,
    /// The debit could not be written, and the limit's `on_error` is `deny`.
    Unavailable,
}

/// What a limit promises, for `ratelimit-policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The largest cost that a full bucket admits.
    pub tokens: u64,
    /// The time in which an empty bucket fills.
    pub window: Duration,
}

/// One worker's side of all limits of one configuration.
#[derive(Clone, Debug)]
pub struct Limiter {
    arena: Arena,
    limits: Vec<Limit>,
    accounts: Accounts,
    secret: Secret,
    /// Numbers the admissions.
    admissions: u64,
    /// What the request at hand spends; kept for its memory.
    pending: Vec<Pending>,
    /// Entries to be touched: limit and number among its entries.
    listed: Vec<(LimitId, usize)>,
    next_touched: usize,
    /// Limits with counts that nobody took yet.
    counted: Vec<LimitId>,
}

/// What every step of one admission needs.
#[derive(Clone, Copy)]
struct Occasion<'a> {
    store: &'a dyn SharedStore,
    now: Instant,
    clock: &'a dyn Fn() -> Instant,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    limit: LimitId,
    fingerprint: u64,
    reach: Reach,
    account: AccountAt,
    cost: u64,
    paid: Paid,
}

#[derive(Clone, Copy, Debug)]
enum AccountAt {
    Limit,
    Key(At),
    Nowhere,
}

#[derive(Clone, Copy, Debug)]
enum Paid {
    NotYet,
    ByLease,
    ByDebit(Made),
    /// Nothing is to be paid, or nothing could be debited and `on_error` lets it pass.
    Not,
}

impl Pending {
    const fn of(spend: &Spend<'_>) -> Self {
        Self {
            limit: spend.limit,
            fingerprint: 0,
            reach: Reach::AllWorkers,
            account: AccountAt::Limit,
            cost: spend.cost,
            paid: Paid::NotYet,
        }
    }
}

impl Limiter {
    /// A limiter without limits. `random` must be different in each process and hard to guess: it keys the
    /// hash that assigns keys to slots, unless another worker's does.
    pub fn new(arena: Arena, random: u128) -> Self {
        Self {
            arena,
            limits: Vec::new(),
            accounts: Accounts::default(),
            secret: Secret::new(random),
            admissions: 0,
            pending: Vec::new(),
            listed: Vec::new(),
            next_touched: 0,
            counted: Vec::new(),
        }
    }

    /// Adds a limit of the model `scope`, as configured, or of all models. Scope and name together say whose
    /// state it continues. `is_keyed` says whether it has a bucket for each key.
    pub fn add(&mut self, scope: Option<&str>, rate: &RateLimit, is_keyed: bool) -> LimitId {
        let id = LimitId(u32::try_from(self.limits.len()).unwrap_or(u32::MAX));
        self.limits.push(Limit::new(scope, rate, is_keyed));
        id
    }

    pub fn quota(&self, limit: LimitId) -> Option<Quota> {
        let gcra = self.limits.get(limit.0 as usize)?.gcra;
        Some(Quota { tokens: gcra.burst(), window: gcra.window() })
    }

    /// Spends all of `spends`, which name each limit once, or nothing.
    ///
    /// The law of a limit holds for the moments `now` of its decisions. `clock` is read only to undo a debit.
    /// Limits in shadow mode are asked last, each for itself, and only counted.
    pub fn admit<'k>(
        &mut self,
        store: &dyn SharedStore,
        now: Instant,
        clock: &dyn Fn() -> Instant,
        spends: impl IntoIterator<Item: Borrow<Spend<'k>>, IntoIter: Clone>,
    ) -> Admission {
        self.admissions = self.admissions.saturating_add(1);
        let (spends, occasion) = (spends.into_iter(), Occasion { store, now, clock });
        let mut pending = std::mem::take(&mut self.pending);
        pending.clear();
        let mut has_shadows = false;
        let looked = spends.clone().try_for_each(|spend| match self.mode(spend.borrow().limit) {
            Some(Mode::Enforce) => self.look(occasion, spend.borrow(), &mut pending),
            Some(Mode::Shadow) => {
                has_shadows = true;
                Ok(())
            }
            None => Ok(()),
        });
        let enforced = looked.and_then(|()| self.pay(occasion, &mut pending));
        if enforced.is_ok() && has_shadows {
            for spend in spends {
                let spend = spend.borrow();
                if self.mode(spend.limit) == Some(Mode::Shadow) {
                    pending.clear();
                    let looked = self.look(occasion, spend, &mut pending);
                    if looked.and_then(|()| self.pay(occasion, &mut pending)).is_err() {
                        self.count(spend.limit, |counts| &mut counts.shadow_refused);
                    }
                }
            }
        }
        self.pending = pending;
        enforced.map_or_else(Admission::Refused, |()| Admission::Admitted)
    }

    /// Debits what no lease pays, and takes the rest out of the leases.
    fn pay(&mut self, occasion: Occasion<'_>, pending: &mut [Pending]) -> Result<(), Refusal> {
        for place in 0..pending.len() {
            let Some(next) = pending.get_mut(place).filter(|next| matches!(next.paid, Paid::NotYet)) else {
                continue;
            };
            if let Err(refusal) = self.debit(occasion, next) {
                for made in pending.iter() {
                    self.undo(occasion, made);
                }
                return Err(refusal);
            }
        }
        for paid in pending.iter() {
            self.settle(occasion.now, paid);
        }
        Ok(())
    }

    fn mode(&self, limit: LimitId) -> Option<Mode> {
        self.limits.get(limit.0 as usize).map(|limit| limit.mode)
    }

    /// What this worker knows without asking: that it has a lease, that the bucket is empty, or nothing.
    fn look(
        &mut self,
        occasion: Occasion<'_>,
        spend: &Spend<'_>,
        pending: &mut Vec<Pending>,
    ) -> Result<(), Refusal> {
        let now = occasion.now;
        let Spend { limit: LimitId(id), key, cost } = *spend;
        // It is large, so it is made where it stays.
        pending.push(Pending::of(spend));
        let (Some(limit), Some(pending)) = (self.limits.get_mut(id as usize), pending.last_mut()) else {
            return Ok(());
        };
        if matches!(limit.buckets, Buckets::Slots { .. }) {
            (pending.fingerprint, pending.reach) =
                self.secret.fingerprint(&self.arena, occasion.store, now, key);
            let holder = Holder { limit: id, fingerprint: pending.fingerprint };
            pending.account =
                self.accounts.find(holder, self.admissions).map_or(AccountAt::Nowhere, AccountAt::Key);
        }
        let Limit { gcra, account: own, .. } = limit;
        if gcra.burst() < cost {
            return Err(refusal(pending, gcra, Refused::NeverSatisfiable, Tat::default(), now));
        }
        if let Some(account) = account(own, &mut self.accounts, pending.account) {
            account.ask(cost, now);
            let need = cost.saturating_sub(account.leased(now));
            if need == 0 {
                pending.paid = Paid::ByLease;
            } else if let Some(why) = account.refuses(gcra, need, now) {
                return Err(refusal(pending, gcra, why, account.tat(), now));
            }
        }
        if cost == 0 {
            pending.paid = Paid::Not;
        }
        Ok(())
    }

    /// Makes the debit of one limit, a lease where it is worth one.
    fn debit(&mut self, occasion: Occasion<'_>, pending: &mut Pending) -> Result<(), Refusal> {
        let now = occasion.now;
        let Some(limit) = self.limits.get_mut(pending.limit.0 as usize) else { return Ok(()) };
        let gcra = limit.gcra;
        let known = account(&mut limit.account, &mut self.accounts, pending.account);
        // What is left of a lease is used first, so that only the rest is needed.
        let need = pending.cost.saturating_sub(known.as_ref().map_or(0, |account| account.leased(now)));
        let want = known.and_then(|account| account.lease(&gcra, need, now)).unwrap_or(need);
        let at = Workplace { arena: &self.arena, store: occasion.store, now };
        let made = limit.debit(at, pending.fingerprint, pending.reach, (need, want));
        let known = account(&mut limit.account, &mut self.accounts, pending.account);
        let outcome = match made {
            Ok(made) => {
                if let Some(account) = known {
                    account.remember(made.seat, made.debit.tat, now);
                }
                pending.paid = Paid::ByDebit(made);
                if made.is_shared {
                    self.count(pending.limit, |counts| &mut counts.shared);
                }
                if made.is_alone {
                    self.count(pending.limit, |counts| &mut counts.alone);
                }
                Ok(())
            }
            Err(NotMade::Refused { why, tat, seat }) => {
                let known = known.filter(|_| seat != Seat::Shared);
                let why = known.map_or(why, |account| account.see_empty(&gcra, tat, need, now, why));
                let refusal = refusal(pending, &gcra, why, tat, now);
                if seat == Seat::Shared {
                    self.count(pending.limit, |counts| &mut counts.shared);
                }
                Err(refusal)
            }
            Err(NotMade::Conflict) => {
                pending.paid = Paid::Not;
                let on_error = limit.on_error;
                self.count(pending.limit, |counts| &mut counts.failed);
                match on_error {
                    OnError::Allow => Ok(()),
                    OnError::Deny => Err(Refusal {
                        limit: pending.limit,
                        why: Why::Unavailable,
                        remaining: 0,
                        full_in: Duration::ZERO,
                    }),
                }
            }
        };
        self.list(pending);
        outcome
    }

    /// Gives back what was debited for a request that another limit refuses.
    fn undo(&mut self, occasion: Occasion<'_>, pending: &Pending) {
        let (Paid::ByDebit(made), Some(limit)) =
            (pending.paid, self.limits.get_mut(pending.limit.0 as usize))
        else {
            return;
        };
        let at = Workplace { arena: &self.arena, store: occasion.store, now: occasion.now };
        let refunded = limit.refund(at, pending.fingerprint, &made, occasion.clock);
        if let (Some(account), Some(tat)) =
            (account(&mut limit.account, &mut self.accounts, pending.account), refunded)
        {
            account.remember(made.seat, tat, occasion.now);
        }
    }

    /// Takes out of a lease, or keeps the rest of a debit as one.
    fn settle(&mut self, now: Instant, pending: &Pending) {
        let Some(limit) = self.limits.get_mut(pending.limit.0 as usize) else { return };
        let Some(account) = account(&mut limit.account, &mut self.accounts, pending.account) else { return };
        match pending.paid {
            Paid::ByLease => account.use_lease(pending.cost),
            Paid::ByDebit(made) => {
                let need = pending.cost.saturating_sub(account.leased(now));
                account.put_lease(made.debit.tokens.saturating_sub(need), now);
            }
            Paid::NotYet | Paid::Not => (),
        }
    }

    /// Keeps the entries of this configuration from being taken by others. It costs next to nothing when
    /// nothing is due, so it belongs on every tick, of roots that drain too.
    #[inline(never)]
    pub fn tick(&mut self, store: &dyn SharedStore, now: Instant) {
        self.secret.touch(&self.arena, store, now);
        for _ in 0..TOUCHED_PER_TICK.min(self.listed.len()) {
            if self.listed.len() <= self.next_touched {
                self.next_touched = 0;
            }
            let Some((id, number)) = self.listed.get(self.next_touched).copied() else { return };
            let entry = self.limits.get_mut(id.0 as usize).and_then(|limit| limit.entry_mut(number));
            if let Some(entry) = entry {
                if entry.touch(&self.arena, store, now) {
                    self.next_touched = self.next_touched.saturating_add(1);
                    continue;
                }
                entry.is_listed = false;
            }
            self.listed.swap_remove(self.next_touched);
        }
    }

    /// Hands over what was counted since the last time, limit by limit.
    pub fn take_counts(&mut self, mut take: impl FnMut(LimitId, Counts)) {
        for id in self.counted.drain(..) {
            if let Some(limit) = self.limits.get_mut(id.0 as usize) {
                take(id, std::mem::take(&mut limit.counts));
            }
        }
    }

    /// How often another worker wrote first, since this limiter was made.
    pub fn conflicts(&self) -> u64 {
        self.arena.conflicts()
    }

    fn count(&mut self, id: LimitId, which: impl Fn(&mut Counts) -> &mut u64) {
        let Some(limit) = self.limits.get_mut(id.0 as usize) else { return };
        if limit.counts == Counts::default() {
            self.counted.push(id);
        }
        let count = which(&mut limit.counts);
        *count = count.saturating_add(1);
    }

    fn list(&mut self, pending: &Pending) {
        let Some(limit) = self.limits.get_mut(pending.limit.0 as usize) else { return };
        let number = limit.entry(pending.fingerprint);
        if let Some(entry) = limit.entry_mut(number).filter(|entry| entry.is_shared() && !entry.is_listed) {
            entry.is_listed = true;
            self.listed.push((pending.limit, number));
        }
    }
}

/// The account of one spend, which may be the limit's own.
fn account<'a>(own: &'a mut Account, accounts: &'a mut Accounts, at: AccountAt) -> Option<&'a mut Account> {
    match at {
        AccountAt::Limit => Some(own),
        AccountAt::Key(at) => accounts.at(at),
        AccountAt::Nowhere => None,
    }
}

fn refusal(pending: &Pending, gcra: &Gcra, why: Refused, tat: Tat, now: Instant) -> Refusal {
    let remaining = gcra.available(tat, now);
    Refusal {
        limit: pending.limit,
        why: match why {
            Refused::Exhausted { retry_after } => Why::Exhausted { retry_after },
            Refused::NeverSatisfiable => Why::NeverSatisfiable,
        },
        remaining: remaining.min(pending.cost.saturating_sub(1)),
        full_in: tat.full_in(now),
    }
}
