//! The output of a command in the container.

use tucano_api::volumes::Consistency;
use tucano_backup::{Operation, Source};

use super::{
    Job, Stored,
    engine::Input,
    session::{self, Said},
    tree,
};
use crate::{clock::timestamp, runner::Presence};

/// Name of the file in a snapshot.
const NAME: &str = "dump";

/// Why the output does not come to the program any more.
enum Broken {
    /// The command failed, for this reason.
    Command(String),
    /// The program does not take it, and says why.
    Program,
}

/// Stores the output of the job's command, once that has ended with success.
///
/// # Errors
/// A message for the user.
pub(super) async fn store(job: &Job) -> Result<Stored, String> {
    let order = &job.order;
    let process = order.process.as_ref();
    let process = process.ok_or("`dump` runs in the volume's process, and there is none")?;
    job.wait_until_healthy(process).await?;
    let at = timestamp();
    let source = Source::Stream {
        name: NAME.to_owned(),
    };
    let backup = Operation::Backup(job.backup(source, at));
    let (mut input, mut events, _) = job.explained(job.start(backup).await)?;
    let home = job.executor.data.process(process).home();
    let runtime = &job.executor.runtime;
    let (mut to_command, mut output) = session::start(runtime, &home, &order.dump).await?;
    to_command.end().await.ok();
    let result = {
        let mut result = std::pin::pin!(tree::stored(&mut events));
        tokio::select! {
            result = &mut result => result,
            pumped = pump(&mut output, &mut input) => match pumped {
                Ok(()) | Err(Broken::Program) => result.await,
                Err(Broken::Command(reason)) => {
                    let is_there = job.executor.containers.presence(process) == Presence::Running;
                    let gone = if is_there { "" } else { " (the process does not run any more)" };
                    let name = order.dump.first().map_or("dump", String::as_str);
                    return Err(format!("`dump`: {name} {reason}{gone}"));
                }
            }
        }
    };
    let result = job.explained(result)?;
    Ok(Stored::new(result, at, Consistency::Dump))
}

/// Passes the output on until the command has ended with success, and says so.
async fn pump(output: &mut session::Output, input: &mut Input) -> Result<(), Broken> {
    let mut is_empty = true;
    loop {
        match output.next().await.map_err(Broken::Command)? {
            Said::Output(bytes) => {
                is_empty &= bytes.is_empty();
                input.data(&bytes).await.map_err(|_| Broken::Program)?;
            }
            Said::Success if is_empty => {
                let reason = "ended with success and wrote nothing to its standard output";
                return Err(Broken::Command(reason.to_owned()));
            }
            Said::Success => return input.commit().await.map_err(|_| Broken::Program),
        }
    }
}
