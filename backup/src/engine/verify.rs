//! Looking for damage, and for locks that nobody has any more.

use rustic_core::CheckOptions;

use super::{
    Context, locks,
    opened::{Opened, explain},
};
use crate::{Check, Checked, Failure, Unlocked};

/// Looks for damage.
pub(super) fn check(context: &Context, request: &Check) -> Result<Checked, Failure> {
    let opened = Opened::open(context)?;
    let _lock = opened.lock(context, locks::Use::Shared)?;
    let options = CheckOptions::default().read_data(request.read_data);
    let results = opened.repository.check(options);
    let results = results.map_err(|error| explain(&opened.storage, &error))?;
    let errors = results
        .0
        .iter()
        .filter(|(level, _)| format!("{level:?}") == "Error");
    let errors: Vec<String> = errors.map(|(_, error)| error.to_string()).collect();
    let limit = context.request.limits.warnings as usize;
    Ok(Checked {
        errors_total: errors.len() as u64,
        errors: errors.into_iter().take(limit).collect(),
    })
}

/// Removes stale locks.
pub(super) fn unlock(context: &Context) -> Result<Unlocked, Failure> {
    let opened = Opened::open(context)?;
    let (removed, left) = locks::remove_stale(&opened.storage, &opened.seal)?;
    Ok(Unlocked { removed, left })
}
