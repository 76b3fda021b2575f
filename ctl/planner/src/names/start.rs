//! Services that are started for the first time after others: only the first start waits.

use tucano_api::{ids::ServiceName, reasons::PendingReason};

use crate::state::{State, pending};

/// Whether the first process of a service waits for others; then the service is pending.
pub(crate) fn holds_back(state: &mut State, name: &ServiceName) -> bool {
    let waited_for = waited_for(state, name);
    let Some(service) = state.services.get_mut(name) else {
        return false;
    };
    if !service.record.awaits_start {
        return false;
    }
    if waited_for.is_empty() || !service.processes.is_empty() {
        service.record.awaits_start = false;
        state.awaiting_start.remove(name);
        state.changes.services.insert(name.clone());
        return false;
    }
    let reason = PendingReason::StartsAfter {
        services: waited_for,
    };
    service.pending = pending(service.concurrency(), reason);
    state.awaiting_start.insert(name.clone());
    true
}

/// Has services reconciled whose wait is over. Whether there are any.
pub(crate) fn release(state: &mut State) -> bool {
    if !state.awaited.is_empty() {
        return false;
    }
    let over: Vec<ServiceName> = state
        .awaiting_start
        .iter()
        .filter(|name| waited_for(state, name).is_empty())
        .cloned()
        .collect();
    state.changes.reconcile.extend(over.iter().cloned());
    !over.is_empty()
}

/// The services without a healthy process that it starts after. One that was removed is not waited for.
fn waited_for(state: &State, name: &ServiceName) -> Vec<ServiceName> {
    let Some(service) = state.services.get(name) else {
        return Vec::new();
    };
    let has_healthy = |name: &ServiceName| {
        state.services.get(name).is_none_or(|service| {
            let mut processes = state.processes(&service.processes);
            processes.any(|it| it.is_healthy() && !it.is_draining())
        })
    };
    let all = service.current().config.start_after.iter();
    all.filter(|it| !has_healthy(it)).cloned().collect()
}
