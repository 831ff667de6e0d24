//! Holds: requests whose headers wait for the first bytes of their body.
//!
//! Every hold ends: by the body, by the caller's leaving, or by its deadline. Their number is bounded, and when it is
//! reached the oldest make room: a caller who sends the body at once is served whatever others hold back, and who
//! sends none loses its place early. It is told so at the next tick, because Envoy stops the request in whose
//! callback another one is answered; until then at most as many wait to be told as may be held.
//!
//! A host that was not told to run body callbacks while headers wait (Envoy's
//! `allow_on_headers_stop_iteration`) would make every request wait for nothing, and nothing in the ABI
//! shows it. So it is found out: a body callback during a hold proves the host capable; a hold that ended by
//! its deadline and whose first body callback comes right after its release proves the contrary, because that
//! host keeps the body back until then. A slow client's body comes at neither moment and proves nothing.

use std::time::Duration;

use crate::units::Instant;

/// The requests of one worker that are held.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    host: HostAbility,
    /// By their places. A map by id would cost a request some hundred instructions more.
    entries: Vec<Entry>,
    free: Vec<Place>,
    /// How many have a deadline.
    waiting: usize,
    /// Whose holds ended to make room, and who have not been told yet.
    evicted: Vec<Place>,
}

/// Where a request stands among those that are held. It is given again once its hold has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    /// Its index, no larger than the number that were ever held at once.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Until(Instant),
    Evicted,
}

/// Whether the host runs body callbacks while headers wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostAbility {
    #[default]
    Unproven,
    Capable,
    Incapable,
}

/// The hold was refused: too many are held already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    pub held: usize,
}

/// While it is not known whether holds make sense, only so many requests of a worker wait to find out.
pub const MAX_HELD_UNPROVEN: u32 = 16;

/// How often the host calls, to end holds whose deadline has come and to merge what workers have seen.
pub const TICK: Duration = Duration::from_millis(100);

impl Holds {
    /// The holds under a host of which it is known already.
    pub fn under(host: HostAbility) -> Self {
        Self { host, ..Self::default() }
    }

    pub const fn host(&self) -> HostAbility {
        self.host
    }

    /// How many are held, those included that have made room and were not told yet.
    pub fn held(&self) -> usize {
        self.waiting.saturating_add(self.evicted.len())
    }

    /// Holds the request `id` until `deadline`. Where `most` are held already, the oldest make room.
    ///
    /// # Errors
    ///
    /// Refuses while the host's ability is not known and enough requests wait to find it out, because the oldest of
    /// them are about to show it; and when as many as may be held have made room and wait to be told.
    pub fn admit(&mut self, id: u32, deadline: Instant, most: u32) -> Result<Place, TooMany> {
        let most = match self.host {
            HostAbility::Unproven => most.min(MAX_HELD_UNPROVEN),
            HostAbility::Capable | HostAbility::Incapable => most,
        } as usize;
        if self.waiting >= most {
            let room = most.saturating_sub(self.evicted.len());
            if self.host == HostAbility::Unproven || room == 0 {
                return Err(TooMany { held: self.held() });
            }
            self.evict_oldest(room);
        }
        let entry = Entry { id, state: State::Until(deadline) };
        let place = self.free.pop().unwrap_or(Place(u32::try_from(self.entries.len()).unwrap_or(u32::MAX)));
        match self.entries.get_mut(place.index()) {
            Some(free) => *free = entry,
            None => self.entries.push(entry),
        }
        self.waiting = self.waiting.saturating_add(1);
        Ok(place)
    }

    /// Ends the oldest sixteenth of the holds, or `most`: looking for them costs as much for many as for one.
    fn evict_oldest(&mut self, most: usize) {
        let mut ages: Vec<_> = (0..)
            .map(Place)
            .zip(&self.entries)
            .filter_map(|(place, entry)| match entry.state {
                State::Until(deadline) => Some((deadline.as_nanos(), entry.id, place)),
                State::Free | State::Evicted => None,
            })
            .collect();
        if ages.is_empty() {
            return;
        }
        let last = ages.len().div_euclid(16).min(most).saturating_sub(1);
        let (older, newest, _) = ages.select_nth_unstable_by_key(last, |(deadline, id, _)| (*deadline, *id));
        for (_, _, place) in older.iter().chain([&*newest]) {
            if let Some(entry) = self.entries.get_mut(place.index()) {
                entry.state = State::Evicted;
                self.waiting = self.waiting.saturating_sub(1);
                self.evicted.push(*place);
            }
        }
    }

    /// Names requests whose holds ended to make room, each once, and at most so many.
    pub fn take_evicted(&mut self, most: usize) -> Vec<(u32, Place)> {
        let told = most.min(self.evicted.len());
        let Self { entries, free, evicted, .. } = self;
        evicted
            .drain(..told)
            .filter_map(|place| {
                let entry = entries.get_mut(place.index())?;
                entry.state = State::Free;
                free.push(place);
                Some((entry.id, place))
            })
            .collect()
    }

    /// Ends the hold of `id`, if it is the one that is held at the place.
    pub fn release(&mut self, id: u32, place: Place) {
        let Some(entry) = self.entries.get_mut(place.index()).filter(|entry| entry.id == id) else { return };
        match std::mem::replace(&mut entry.state, State::Free) {
            State::Free => return,
            State::Until(_) => self.waiting = self.waiting.saturating_sub(1),
            State::Evicted => self.evicted.retain(|evicted| *evicted != place),
        }
        self.free.push(place);
    }

    /// Ends holds whose deadline has come, or any where they make no sense, at most so many, and names them.
    pub fn expire(&mut self, now: Instant, most: usize) -> Vec<(u32, Place)> {
        let all = self.host == HostAbility::Incapable;
        let Self { entries, free, waiting, .. } = self;
        (0..)
            .map(Place)
            .zip(entries)
            .filter(|(_, entry)| matches!(entry.state, State::Until(deadline) if all || deadline <= now))
            .take(most)
            .map(|(place, entry)| {
                entry.state = State::Free;
                free.push(place);
                *waiting = waiting.saturating_sub(1);
                (entry.id, place)
            })
            .collect()
    }

    /// A body callback came during a hold.
    pub fn prove_capable(&mut self) {
        self.host = HostAbility::Capable;
    }

    /// The first body callback of a request came `after` its hold had ended by the deadline.
    ///
    /// True when this shows that the host cannot hold, which is concluded once.
    pub fn conclude_incapable(&mut self, after: Duration) -> bool {
        let shown = self.host == HostAbility::Unproven && after <= TICK;
        if shown {
            self.host = HostAbility::Incapable;
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(millis: u64) -> Instant {
        Instant::default().after(Duration::from_millis(millis))
    }

    fn ids(ended: &[(u32, Place)]) -> Vec<u32> {
        ended.iter().map(|(id, _)| *id).collect()
    }

    #[test]
    fn few_wait_to_find_out_and_more_once_it_is_known() {
        let mut holds = Holds::default();
        for id in 0..MAX_HELD_UNPROVEN {
            assert!(holds.admit(id, at(1), 1024).is_ok());
        }
        assert_eq!(holds.admit(99, at(1), 1024), Err(TooMany { held: 16 }));
        holds.prove_capable();
        assert!(holds.admit(99, at(1), 1024).is_ok());
        assert_eq!(holds.held(), 17);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut holds = Holds::under(HostAbility::Capable);
        let mut told = Vec::new();
        for id in 0..1000_u32 {
            assert!(holds.admit(id, at(u64::from(id)), 32).is_ok());
            assert!(holds.held() <= 64);
            if id % 30 == 0 {
                told.extend(ids(&holds.take_evicted(usize::MAX)));
            }
        }
        told.extend(ids(&holds.take_evicted(usize::MAX)));
        assert_eq!(holds.held() + told.len(), 1000);
        let newest: Vec<_> = (1000 - u32::try_from(holds.held()).unwrap()..1000).collect();
        let mut held = ids(&holds.expire(at(1000), usize::MAX));
        held.sort_unstable();
        assert_eq!(held, newest);
    }

    #[test]
    fn what_is_held_stays_bounded_when_nobody_is_told() {
        let mut holds = Holds::under(HostAbility::Capable);
        let refused = (0..1000).filter(|id| holds.admit(*id, at(1), 32).is_err()).count();
        assert!(refused > 900);
        assert_eq!(holds.held(), 64);
    }

    #[test]
    fn one_that_made_room_and_sends_its_body_before_it_is_told_is_served() {
        let mut holds = Holds::under(HostAbility::Capable);
        let first = holds.admit(1, at(1), 1).unwrap();
        holds.admit(2, at(2), 1).unwrap();
        holds.release(1, first);
        assert!(holds.take_evicted(usize::MAX).is_empty());
        assert_eq!(holds.held(), 1);
    }

    #[test]
    fn one_place_goes_to_the_newest() {
        let mut holds = Holds::under(HostAbility::Capable);
        holds.admit(1, at(1), 1).unwrap();
        holds.admit(2, at(2), 1).unwrap();
        assert_eq!((holds.held(), ids(&holds.take_evicted(usize::MAX)), holds.held()), (2, vec![1], 1));
    }

    #[test]
    fn a_hold_ends_once() {
        let mut holds = Holds::default();
        holds.admit(1, at(10), 8).unwrap();
        holds.admit(2, at(20), 8).unwrap();
        let third = holds.admit(3, at(10), 8).unwrap();
        holds.release(3, third);
        holds.release(3, third);
        assert!(holds.expire(at(9), usize::MAX).is_empty());
        assert_eq!(ids(&holds.expire(at(10), usize::MAX)), [1]);
        assert!(holds.expire(at(10), usize::MAX).is_empty());
        assert_eq!(holds.held(), 1);
    }

    #[test]
    fn no_more_end_at_a_time_than_may_and_none_is_forgotten() {
        let mut holds = Holds::under(HostAbility::Capable);
        for id in 0..10 {
            holds.admit(id, at(1), 8).unwrap();
        }
        let mut ended = holds.take_evicted(1);
        assert_eq!(ended.len(), 1);
        assert_eq!(holds.expire(at(1), 5).len(), 5);
        ended.extend(holds.take_evicted(5));
        ended.extend(holds.expire(at(1), 5));
        assert_eq!((ended.len(), holds.held()), (5, 0));
    }

    #[test]
    fn a_place_is_given_again_and_its_former_holder_cannot_end_the_new_hold() {
        let mut holds = Holds::under(HostAbility::Capable);
        let first = holds.admit(1, at(1), 8).unwrap();
        assert_eq!(holds.expire(at(1), usize::MAX), [(1, first)]);
        assert_eq!(holds.admit(2, at(2), 8), Ok(first));
        holds.release(1, first);
        assert_eq!(holds.held(), 1);
        holds.release(2, first);
        assert_eq!(holds.held(), 0);
    }

    #[test]
    fn nobody_waits_longer_once_the_host_is_found_incapable() {
        let mut holds = Holds::default();
        holds.admit(1, at(10), 8).unwrap();
        assert!(holds.conclude_incapable(Duration::ZERO));
        assert_eq!(ids(&holds.expire(at(0), usize::MAX)), [1]);
    }

    #[test]
    fn only_a_body_right_after_the_release_shows_an_incapable_host() {
        let mut holds = Holds::default();
        assert!(!holds.conclude_incapable(Duration::from_millis(101)));
        assert_eq!(holds.host(), HostAbility::Unproven);
        assert!(holds.conclude_incapable(Duration::from_millis(1)));
        assert!(!holds.conclude_incapable(Duration::from_millis(1)));
        let mut proven = Holds::under(HostAbility::Capable);
        assert!(!proven.conclude_incapable(Duration::ZERO));
        assert_eq!(proven.host(), HostAbility::Capable);
    }
}
