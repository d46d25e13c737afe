//! How another thread makes translated code leave at the next block.
//!
//! A block begins by looking at the budget's sign, through a mask in the state block ([`super::state::State::sign`]). Without the mask every budget looks
//! used up: so one store from outside is enough, and nothing is paid for it.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::SeqCst};

/// The mask of a state block that lets translated code run.
pub(crate) const GO: u64 = 1 << 63;

/// The mask of the state block with which a processor runs translated code, for other threads to take away.
#[derive(Debug, Default)]
pub(crate) struct Brake(AtomicPtr<AtomicU64>);

impl Brake {
    /// Translated code is going to run with `mask`, which stays where it is as long as any thread may call [`Brake::pull`].
    pub(crate) fn fit(&self, mask: &AtomicU64) {
        self.0.store(ptr::from_ref(mask).cast_mut(), SeqCst);
    }

    /// Translated code was left.
    pub(crate) fn remove(&self) {
        self.0.store(ptr::null_mut(), SeqCst);
    }

    /// Translated code that runs leaves at the next block. It may do so once more when it was left just now.
    pub(crate) fn pull(&self) {
        let mask = self.0.load(SeqCst);
        if !mask.is_null() {
            // SAFETY: a mask in the state blocks of a processor, which live as long as the machine; the machine ends after its threads. Where the
            // block is not in use any more, the mask is set anew before it is.
            unsafe { (*mask).store(0, SeqCst) };
        }
    }
}
