use super::*;
use crate::store::{MemStore, Version};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const STALE: Instant = Instant::from_nanos(1_200_000_000_000);

fn arena(entries: u32) -> Arena {
    Arena::new("test", entries, DRAIN)
}

fn owner(name: &str) -> Owner {
    Owner::of("test", &[name.as_bytes()])
}

fn now(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn body(arena: &Arena, store: &MemStore, place: &mut Place) -> Result<Vec<u8>, Failed> {
    arena.read(store, place, <[u8]>::to_vec)
}

#[test]
fn an_owner_finds_its_entry_again() {
    let (arena, store) = (arena(64), MemStore::default());
    let mut place = arena.claim(&store, now(1), owner("a"), &[7]).unwrap();
    arena.update(&store, &mut place, now(2), |body| (Then::Write, body.push(8))).unwrap();
    let mut again = arena.claim(&store, now(3), owner("a"), &[9]).unwrap();
    assert_eq!(body(&arena, &store, &mut again), Ok(vec![7, 8]));
    assert_eq!(store.len(), 1);
}

#[test]
fn owners_have_an_entry_each_until_the_arena_is_full() {
    let (arena, store) = (arena(16), MemStore::default());
    let names: Vec<_> = (0..17).map(|number| format!("owner {number}")).collect();
    let mut places: Vec<_> =
        names.iter().map(|name| arena.claim(&store, now(0), owner(name), name.as_bytes())).collect();
    assert_eq!(places.pop(), Some(Err(Unclaimed::Full)));
    for (place, name) in places.into_iter().zip(&names) {
        assert_eq!(body(&arena, &store, &mut place.unwrap()), Ok(name.clone().into_bytes()));
    }
    assert_eq!(store.len(), 16);
}

#[test]
fn what_nobody_touched_for_twice_the_drain_time_goes_to_whoever_needs_it() {
    let (arena, store) = (arena(1), MemStore::default());
    let mut first = arena.claim(&store, now(0), owner("first"), &[1]).unwrap();
    let early = now(STALE.as_nanos() - 1);
    assert_eq!(arena.claim(&store, early, owner("second"), &[2]), Err(Unclaimed::Full));
    let mut second = arena.claim(&store, STALE, owner("second"), &[2]).unwrap();
    assert_eq!(body(&arena, &store, &mut second), Ok(vec![2]));
    assert_eq!(body(&arena, &store, &mut first), Err(Failed::Lost));
    let update = arena.update(&store, &mut first, STALE, |_| (Then::Write, ()));
    assert_eq!(update, Err(Failed::Lost));
}

#[test]
fn an_entry_that_is_touched_or_written_is_kept() {
    for touch in [false, true] {
        let (arena, store) = (arena(1), MemStore::default());
        let mut first = arena.claim(&store, now(0), owner("first"), &[1]).unwrap();
        let half = now(STALE.as_nanos() / 2);
        if touch {
            arena.touch(&store, &mut first, half).unwrap();
        } else {
            arena.update(&store, &mut first, half, |_| (Then::Write, ())).unwrap();
        }
        assert_eq!(arena.claim(&store, STALE, owner("second"), &[2]), Err(Unclaimed::Full));
        assert_eq!(body(&arena, &store, &mut first), Ok(vec![1]));
    }
}

/// Counts what the host is asked.
#[derive(Default)]
struct Counting {
    store: MemStore,
    calls: Cell<u32>,
}

impl SharedStore for Counting {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
        self.calls.set(self.calls.get() + 1);
        self.store.load(key)
    }

    fn store(&self, key: &str, value: &[u8], version: Version) -> Result<(), crate::store::Conflict> {
        self.calls.set(self.calls.get() + 1);
        self.store.store(key, value, version)
    }
}

#[test]
fn touching_on_every_tick_writes_once_in_a_quarter_of_the_drain_time_whoever_does_it() {
    let (arena, store) = (arena(64), Counting::default());
    let mut places = [(); 4].map(|()| arena.claim(&store, now(0), owner("a"), &[]).unwrap());
    store.calls.set(0);
    let mut ticks = 0;
    for tick in 0..12_000 {
        for place in &mut places {
            arena.touch(&store, place, now(tick * 100_000_000)).unwrap();
            ticks += 1;
        }
    }
    // In each of the eight quarters one worker looks twice and writes, and three look.
    assert_eq!(ticks, 48_000);
    assert!(store.calls.get() <= 8 * (3 + 3), "{}", store.calls.get());
}

#[test]
fn a_claim_that_somebody_left_unfinished_is_completed() {
    let (arena, store) = (arena(64), MemStore::default());
    let place = arena.claim(&store, now(0), owner("a"), &[1]).unwrap();
    let (value, version) = store.load(&place.key);
    let mut value = value.unwrap();
    let trailer = Trailer { state: State::Claimed, ..Trailer::cut(&mut value) };
    trailer.put(&mut value);
    store.store(&place.key, &value, version).unwrap();
    let mut again = arena.claim(&store, now(1), owner("a"), &[2]).unwrap();
    assert_eq!((again.key.clone(), body(&arena, &store, &mut again)), (place.key, Ok(vec![1])));
}

#[test]
fn two_that_claim_at_once_share_what_the_first_in_order_has() {
    let (arena, store) = (arena(64), MemStore::default());
    let owner = owner("a");
    for probe in [0, 1, 2] {
        let trailer = Trailer { state: State::Claimed, owner, touched: now(0) };
        let mut value = vec![u8::try_from(probe).unwrap()];
        trailer.put(&mut value);
        store.store(&arena.key(owner, probe), &value, Version::Absent).unwrap();
    }
    let mut place = arena.claim(&store, now(1), owner, &[9]).unwrap();
    assert_eq!(body(&arena, &store, &mut place), Ok(vec![0]));
    let states = [0, 1, 2].map(|probe| {
        let mut value = store.load(&arena.key(owner, probe)).0.unwrap();
        Trailer::cut(&mut value).state
    });
    assert_eq!(states, [State::Owned, State::Free, State::Free]);
}

#[test]
fn an_update_gives_up_rather_than_spin() {
    struct Contested(MemStore);
    impl SharedStore for Contested {
        fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
            self.0.load(key)
        }
        fn store(&self, _: &str, _: &[u8], _: Version) -> Result<(), crate::store::Conflict> {
            Err(crate::store::Conflict)
        }
    }
    let (arena, store) = (arena(64), MemStore::default());
    let mut place = arena.claim(&store, now(0), owner("a"), &[1]).unwrap();
    let contested = Contested(store);
    let update = arena.update(&contested, &mut place, now(1), |_| (Then::Write, ()));
    assert_eq!((update, arena.conflicts()), (Err(Failed::Conflict), 6));
    let kept = arena.update(&contested, &mut place, now(1), |body| (Then::Keep, body.len()));
    assert_eq!(kept, Ok(1));
}

#[test]
fn an_order_visits_every_entry_once() {
    let arena = arena(64);
    let mut keys: Vec<_> = (0..64).map(|probe| arena.key(owner("a"), probe)).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 64);
    assert!(keys.contains(&"pg1/test/63".into()));
}

#[test]
fn the_parts_of_an_owner_do_not_run_into_each_other() {
    assert_ne!(Owner::of("a", &[b"bc", b"d"]), Owner::of("a", &[b"b", b"cd"]));
    assert_ne!(Owner::of("ab", &[b"c"]), Owner::of("a", &[b"bc"]));
    assert_ne!(Owner::of("a", &[b""]), Owner::of("a", &[]));
}
