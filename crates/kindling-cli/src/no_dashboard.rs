//! In place of `dashboard.rs` where that is not compiled in: it never opens.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kindling_train::TrainEvent;

/// There is none.
pub(crate) enum Dashboard {}

impl Dashboard {
    pub(crate) fn open(_stop: &Arc<AtomicBool>) -> Option<Self> {
        None
    }

    pub(crate) fn on(&mut self, _event: &TrainEvent<'_>) -> bool {
        match *self {}
    }
}

pub(crate) fn is_open() -> bool {
    false
}

pub(crate) fn abandon() {}
