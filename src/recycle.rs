//! An allocator that keeps freed blocks for those who ask for the same size next.
//!
//! A request asks for a dozen small blocks and gives them back, and the next one asks for the same sizes. A general
//! allocator searches for each and merges each with its neighbours, which is a tenth of the instructions of a decision.
//! The sizes are those to which the allocator behind it (dlmalloc) rounds, so that keeping wastes no memory, and few
//! blocks of each are kept, so that what a large configuration gives back is merged again.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr;

/// An allocator in front of another one, for one thread.
#[derive(Debug)]
pub struct Recycling<A> {
    behind: A,
    kept: UnsafeCell<[Kept; PLACES]>,
}

/// The blocks of one size that are kept: a list, each of which holds the address of the next.
#[derive(Clone, Copy, Debug)]
struct Kept {
    first: *mut u8,
    /// How many more may be kept.
    room: usize,
}

/// dlmalloc gives out multiples of 16 bytes, of which it needs 4 itself.
const GRAIN: usize = 16;
const OWN: usize = 4;
/// What every block is aligned to, at least.
const ALIGN: usize = 8;
/// What has more bytes is not kept.
const LARGEST: usize = 2_044;
const PLACES: usize = place_of(LARGEST) + 1;
/// How many bytes of each size are kept at most.
const MOST: usize = 4_096;

/// The place of the blocks that have room for so many bytes. The smallest have room for an address.
const fn place_of(size: usize) -> usize {
    size.saturating_add(OWN - 1) / GRAIN
}

/// How many bytes the blocks of a place have.
const fn capacity(place: usize) -> usize {
    place * GRAIN + GRAIN - OWN
}

/// The place of a layout's blocks, if they are kept.
const fn place(layout: Layout) -> Option<usize> {
    if layout.size() <= LARGEST && layout.align() <= ALIGN { Some(place_of(layout.size())) } else { None }
}

impl<A> Recycling<A> {
    pub const fn new(behind: A) -> Self {
        let mut kept = [Kept { first: ptr::null_mut(), room: 0 }; PLACES];
        let mut left: &mut [Kept] = &mut kept;
        let mut place = 0;
        while let [first, rest @ ..] = left {
            first.room = MOST / capacity(place);
            place += 1;
            left = rest;
        }
        Self { behind, kept: UnsafeCell::new(kept) }
    }

    /// The blocks that are kept at a place.
    ///
    /// # Safety
    ///
    /// No other answer of this function may be in use.
    #[expect(clippy::mut_from_ref, reason = "an allocator is shared, and one thread asks it")]
    unsafe fn kept(&self, place: usize) -> Option<&mut Kept> {
        // SAFETY: the caller sees to it that this is the only one.
        unsafe { &mut *self.kept.get() }.get_mut(place)
    }
}

/// What the allocator behind has to give for a place: the whole block, whatever part of it was asked for.
const fn whole(place: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and no size is near the largest.
    unsafe { Layout::from_size_align_unchecked(capacity(place), ALIGN) }
}

// SAFETY: without threads nothing can be used by two at a time.
#[cfg(all(target_arch = "wasm32", not(target_feature = "atomics")))]
unsafe impl<A: Sync> Sync for Recycling<A> {}

// A copy of these at each of their uses makes the module a tenth larger.
//
// SAFETY: a block is given to one owner at a time, since it is in no list while it is out, and its place follows from
// its layout alone, which the owner says again when it gives it back.
#[expect(clippy::cast_ptr_alignment, reason = "blocks are aligned to 8 bytes")]
unsafe impl<A: GlobalAlloc> GlobalAlloc for Recycling<A> {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(place) = place(layout) else {
            // SAFETY: the caller's promise goes on.
            return unsafe { self.behind.alloc(layout) };
        };
        // SAFETY: it is not used beyond this function, which calls nobody while it is.
        if let Some(kept) = unsafe { self.kept(place) }
            && !kept.first.is_null()
        {
            let block = kept.first;
            // SAFETY: the address was written when the block was kept, and is aligned as all blocks are.
            kept.first = unsafe { block.cast::<*mut u8>().read() };
            kept.room += 1;
            return block;
        }
        // SAFETY: the layout is not of size zero.
        unsafe { self.behind.alloc(whole(place)) }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(place) = place(layout) else {
            // SAFETY: the caller's promise goes on.
            return unsafe { self.behind.dealloc(block, layout) };
        };
        // SAFETY: it is not used beyond this function, which calls nobody while it is.
        if let Some(kept) = unsafe { self.kept(place) }
            && kept.room > 0
        {
            // SAFETY: the block is nobody's any more, and is large enough and aligned for an address.
            unsafe { block.cast::<*mut u8>().write(kept.first) };
            kept.first = block;
            kept.room -= 1;
            return;
        }
        // SAFETY: blocks of this place were asked for with this layout.
        unsafe { self.behind.dealloc(block, whole(place)) };
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if place(layout).is_none() {
            // SAFETY: the caller's promise goes on.
            return unsafe { self.behind.alloc_zeroed(layout) };
        }
        // SAFETY: the caller's promise goes on, and the block has so many bytes.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller sees to it that the size is a layout's.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (place(layout), place(wanted)) {
            (Some(had), Some(needs)) if had == needs => block,
            // SAFETY: the caller's promise goes on.
            (None, None) => unsafe { self.behind.realloc(block, layout, size) },
            // SAFETY: both blocks have as many bytes as the smaller of them, and are not the same.
            _ => unsafe {
                let new = self.alloc(wanted);
                if !new.is_null() {
                    ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                new
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::cell::{Cell, RefCell};
    use std::collections::HashMap;

    use super::*;
    use crate::rng::Rng;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// An allocator that knows what is out, and by which layout.
    #[derive(Default)]
    struct Ledger {
        out: RefCell<HashMap<usize, Layout>>,
        asked: Cell<usize>,
    }

    impl Ledger {
        fn bytes(&self) -> usize {
            self.out.borrow().values().map(Layout::size).sum()
        }
    }

    unsafe impl GlobalAlloc for Ledger {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let block = unsafe { System.alloc(layout) };
            self.asked.set(self.asked.get() + 1);
            assert!(self.out.borrow_mut().insert(block.addr(), layout).is_none());
            block
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            let given = self.out.borrow_mut().remove(&block.addr());
            assert_eq!(given, Some(layout), "given back as it was given out");
            unsafe { System.dealloc(block, layout) };
        }
    }

    /// A block that its owner has filled with a byte of its own.
    struct Owned {
        block: *mut u8,
        layout: Layout,
        byte: u8,
    }

    impl Owned {
        fn new(block: *mut u8, layout: Layout, byte: u8) -> Self {
            assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
            unsafe { block.write_bytes(byte, layout.size()) };
            Self { block, layout, byte }
        }

        fn holds(&self, size: usize) -> bool {
            let bytes = unsafe { std::slice::from_raw_parts(self.block, size) };
            bytes.iter().all(|byte| *byte == self.byte)
        }
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn no_two_owners_have_the_same_byte_whatever_is_asked_for_and_given_back() {
        let allocator = Recycling::new(Ledger::default());
        let mut rng = Rng::seeded(7);
        let mut below = |bound: u64| usize::try_from(rng.next_u64() % bound).unwrap();
        let mut owned: Vec<Owned> = Vec::new();
        for round in 0..20_000 {
            let byte = u8::try_from(round % 251).unwrap();
            let size = 1 + if below(8) == 0 { below(20_000) } else { below(300) };
            match below(5) {
                0 | 1 => {
                    let layout = layout(size, 1 << below(6));
                    owned.push(Owned::new(unsafe { allocator.alloc(layout) }, layout, byte));
                }
                2 => {
                    let layout = layout(size, 8);
                    let block = unsafe { allocator.alloc_zeroed(layout) };
                    let zeroed = Owned { block, layout, byte: 0 };
                    assert!(zeroed.holds(size));
                    owned.push(Owned::new(block, layout, byte));
                }
                3 if !owned.is_empty() => {
                    let at = below(owned.len() as u64);
                    let it = &mut owned[at];
                    let block = unsafe { allocator.realloc(it.block, it.layout, size) };
                    let moved = Owned { block, ..*it };
                    assert!(moved.holds(size.min(it.layout.size())));
                    *it = Owned::new(block, layout(size, it.layout.align()), byte);
                }
                _ if !owned.is_empty() => {
                    let it = owned.swap_remove(below(owned.len() as u64));
                    assert!(it.holds(it.layout.size()));
                    unsafe { allocator.dealloc(it.block, it.layout) };
                }
                _ => {}
            }
        }
        for it in owned {
            assert!(it.holds(it.layout.size()));
            unsafe { allocator.dealloc(it.block, it.layout) };
        }
        let kept = allocator.behind.bytes();
        assert!(kept <= PLACES * MOST, "{kept} bytes are kept");
    }

    #[test]
    fn who_asks_again_gets_the_block_back_without_the_allocator_behind() {
        let allocator = Recycling::new(Ledger::default());
        for size in [1, 12, 13, 28, 29, 256, LARGEST] {
            let first = unsafe { allocator.alloc(layout(size, 8)) };
            unsafe { allocator.dealloc(first, layout(size, 8)) };
            let asked = allocator.behind.asked.get();
            assert_eq!(unsafe { allocator.alloc(layout(size, 1)) }, first);
            assert_eq!(allocator.behind.asked.get(), asked);
            unsafe { allocator.dealloc(first, layout(size, 1)) };
        }
    }

    #[test]
    fn what_is_large_or_of_an_unusual_alignment_is_not_kept() {
        let allocator = Recycling::new(Ledger::default());
        for layout in [layout(LARGEST + 1, 8), layout(64, 16)] {
            let block = unsafe { allocator.alloc(layout) };
            unsafe { allocator.dealloc(block, layout) };
        }
        assert!(allocator.behind.bytes() == 0);
    }

    #[test]
    fn only_so_many_bytes_of_a_size_are_kept() {
        let allocator = Recycling::new(Ledger::default());
        let blocks: Vec<_> = (0..1_000).map(|_| unsafe { allocator.alloc(layout(100, 8)) }).collect();
        for block in blocks {
            unsafe { allocator.dealloc(block, layout(100, 8)) };
        }
        let kept = allocator.behind.bytes();
        let least = MOST - capacity(place_of(100));
        assert!((least..=MOST).contains(&kept), "{kept} bytes are kept");
    }
}
