//! The accounts of the keys that a worker has seen lately, in bounded room.

use super::account::Account;

const WAYS: usize = 4;

/// Sets of a worker's table, which has 160 KB. A key that drops out loses the rest of its lease and is looked
/// up in shared data again, nothing else.
const SETS: usize = 512;

/// A limit and the fingerprint of a key of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    pub limit: u32,
    pub fingerprint: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    holder: Holder,
    /// The admission that last used it. Zero is an empty row.
    used_in: u64,
    account: Account,
}

#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// Made on first use, since many configurations limit no keys.
    rows: Vec<[Row; WAYS]>,
}

/// Where an account is, until the end of the admission that asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    set: usize,
    way: usize,
}

impl Accounts {
    /// The account of `holder` for the admission with this number, which is above that of each one before.
    /// The key that was not seen for longest makes room; no key of the same admission does, so there may be
    /// none.
    pub fn find(&mut self, holder: Holder, admission: u64) -> Option<At> {
        if self.rows.is_empty() {
            self.rows = vec![Default::default(); SETS];
        }
        let mixed = (holder.fingerprint ^ u64::from(holder.limit)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let set = usize::try_from(mixed >> 55).unwrap_or(0);
        let rows = self.rows.get_mut(set)?;
        let own = rows.iter().position(|row| row.used_in > 0 && row.holder == holder);
        let oldest = || rows.iter().enumerate().min_by_key(|(_, row)| row.used_in).map(|(way, _)| way);
        let way = own.or_else(oldest)?;
        let row = rows.get_mut(way)?;
        if own.is_none() {
            if row.used_in == admission {
                return None;
            }
            *row = Row { holder, ..Row::default() };
        }
        row.used_in = admission;
        Some(At { set, way })
    }

    pub fn at(&mut self, at: At) -> Option<&mut Account> {
        Some(&mut self.rows.get_mut(at.set)?.get_mut(at.way)?.account)
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use super::*;
    use crate::units::Instant;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn holder(fingerprint: u64) -> Holder {
        Holder { limit: 0, fingerprint }
    }

    fn put(accounts: &mut Accounts, fingerprint: u64, admission: u64) {
        let at = accounts.find(holder(fingerprint), admission).unwrap();
        accounts.at(at).unwrap().put_lease(fingerprint, Instant::default());
    }

    fn lease(accounts: &mut Accounts, fingerprint: u64, admission: u64) -> u64 {
        let at = accounts.find(holder(fingerprint), admission).unwrap();
        accounts.at(at).unwrap().leased(Instant::default())
    }

    #[test]
    fn a_key_that_is_used_often_stays_whatever_comes_once() {
        let mut accounts = Accounts::default();
        put(&mut accounts, 7, 1);
        for admission in 1..100_000 {
            put(&mut accounts, 1000 + admission, 2 * admission);
            assert_eq!(lease(&mut accounts, 7, 2 * admission + 1), 7);
        }
        assert_eq!(lease(&mut accounts, 1001, 1_000_000), 0, "one of a hundred thousand was kept");
    }

    #[test]
    fn no_key_of_an_admission_drops_out_for_another_of_it() {
        let mut accounts = Accounts::default();
        let found: Vec<_> = (0..10_000).filter_map(|key| accounts.find(holder(key), 1)).collect();
        assert_eq!(found.len(), SETS * WAYS);
    }

    #[test]
    fn limits_have_accounts_of_their_own_for_the_same_key() {
        let mut accounts = Accounts::default();
        let first = accounts.find(Holder { limit: 0, fingerprint: 7 }, 1);
        assert_ne!(first, accounts.find(Holder { limit: 1, fingerprint: 7 }, 1));
    }
}
