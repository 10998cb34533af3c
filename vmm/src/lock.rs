//! Locks that nobody's failure breaks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever befell an earlier holder.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
