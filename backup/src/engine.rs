//! What the program does.

mod backend;
mod control;
mod failure;
mod labels;
mod locks;
mod mode;
mod opened;
mod pack;
mod restore;
mod retention;
mod save;
mod seal;
mod source;
mod storage;
mod verify;

use std::{
    io::{Read, Write},
    sync::Arc,
};

use crate::{Failure, Operation, Outcome, Request};

use control::{Caller, Reporter};
use storage::Storage;

pub use control::{read_request, say};

/// What every operation has.
struct Context {
    request: Request,
    caller: Arc<Caller>,
    reporter: Reporter,
}

impl Context {
    fn storage(&self) -> Result<Arc<Storage>, Failure> {
        let caller = Arc::clone(&self.caller);
        let storage = Storage::new(&self.request.repository, &self.request.limits, caller);
        storage.map(Arc::new)
    }
}

/// Does what is requested. The caller's frames come from `input`, whose end aborts the operation; a restored stream goes to
/// `output`, and events go to `events`.
///
/// # Errors
/// The operation failed, or was aborted.
pub fn run(
    request: Request,
    input: impl Read + Send + 'static,
    output: &mut dyn Write,
    events: Box<dyn Write + Send>,
) -> Result<Outcome, Failure> {
    let reporter = Reporter::new(events, &request.limits);
    let (caller, data) = Caller::follow(input);
    let operation = request.operation.clone();
    validate(&request)?;
    bound_threads(&request);
    let context = Context {
        request,
        caller,
        reporter,
    };
    let outcome = match &operation {
        Operation::Init(_) => opened::initialise(&context).map(Outcome::Initialised),
        Operation::Backup(request) => save::backup(&context, request, data).map(Outcome::BackedUp),
        Operation::Restore(request) => {
            restore::restore(&context, request, output).map(Outcome::Restored)
        }
        Operation::List(request) => retention::list(&context, request).map(Outcome::Listed),
        Operation::Forget(request) => retention::forget(&context, request).map(Outcome::Forgotten),
        Operation::Check(request) => verify::check(&context, request).map(Outcome::Checked),
        Operation::Unlock(_) => verify::unlock(&context).map(Outcome::Unlocked),
    };
    outcome.map_err(|failure| without_secrets(&context.request, failure))
}

/// # Errors
/// A limit is out of range.
fn validate(request: &Request) -> Result<(), Failure> {
    let limits = &request.limits;
    let range = |what: &str, value: u32, from: u32, to: u32| match (from..=to).contains(&value) {
        true => Ok(()),
        false => Err(Failure::bad_request(format!(
            "{what} is {value}: it has to be from {from} to {to}"
        ))),
    };
    range("compression", limits.compression.into(), 1, 22)?;
    range("pack_mib", limits.pack_mib.get(), 1, 128)?;
    range("depth", limits.depth, 1, 4000)?;
    range("threads", limits.threads.get(), 1, 1024)?;
    range("grace_hours", limits.grace_hours.get(), 1, 24 * 366)?;
    if request.repository.password.reveal().is_empty() {
        return Err(Failure::bad_request("the password is empty"));
    }
    Ok(())
}

/// Lets this process use fewer processors: rustic_core starts threads by their number, and each has pieces of files.
fn bound_threads(request: &Request) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let processors = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
    let processors: Vec<usize> = processors.collect();
    // Several of these programs at once are not all on the same ones.
    let first = std::process::id() as usize % processors.len().max(1);
    let mut used = CpuSet::new();
    let threads = request.limits.threads.get() as usize;
    for processor in processors.iter().cycle().skip(first).take(threads) {
        used.set(*processor);
    }
    // Where that is not allowed, it runs with more of them.
    let _ = sched_setaffinity(None, &used);
}

/// A last net: messages of servers and libraries are outside of this program.
fn without_secrets(request: &Request, mut failure: Failure) -> Failure {
    let repository = &request.repository;
    let s3 = repository.s3.as_ref();
    let key = s3.and_then(|s3| s3.secret_access_key.as_ref());
    for secret in [Some(&repository.password), key].into_iter().flatten() {
        if secret.reveal().len() >= 4 {
            failure.message = failure.message.replace(secret.reveal(), "(secret)");
        }
    }
    failure
}
