//! What is counted of connections in each network namespace, so that user space can tell whether something went unseen.

use aya_ebpf::bindings::BPF_NOEXIST;
use socklife_abi::{
    counter::{Counter, Missed},
    event::Kind,
    table::{ENTRIES, Entry},
};

use crate::maps::{BOOKS, add, count, global, missed};

static ZERO: [u64; ENTRIES] = [0; ENTRIES];

/// The books of one namespace.
#[derive(Clone, Copy)]
pub struct Book(*mut u64);

/// The books of a namespace; those of none where there is no room.
#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value it would be copied onto the stack, which has no room for it"
)]
pub fn of(netns: u32) -> Option<Book> {
    if BOOKS.get_ptr(netns).is_none() {
        // Another CPU may have been first, which is as good.
        let _ = BOOKS.insert(netns, &ZERO, u64::from(BPF_NOEXIST));
    }
    let book = BOOKS.get_ptr_mut(netns);
    if book.is_none() {
        missed(Missed::ListenerTable);
    }
    book.map(|book| Book(book.cast()))
}

impl Book {
    /// One more.
    #[inline(always)]
    pub fn add(self, entry: Entry) {
        // SAFETY: within the value.
        add(unsafe { self.0.add(entry as usize) }, 1);
    }

    /// So many so far.
    #[inline(always)]
    pub fn total(self, entry: Entry) -> u64 {
        // SAFETY: within the value.
        unsafe { self.0.add(entry as usize).read_volatile() }
    }
}

/// One more in a namespace.
#[inline(always)]
pub fn note(netns: u32, entry: Entry) {
    if let Some(book) = of(netns) {
        book.add(entry);
    }
}

/// An event of this kind did not come, and something later tells so.
#[inline(always)]
pub fn unseen(kind: Kind) {
    if global!(FILTER.events) & (1 << kind as u8) != 0 {
        count(Counter::Unseen(kind as usize));
    }
}
