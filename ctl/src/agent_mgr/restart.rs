//! Runs a worker's `restart` command: one at a time per worker, bounded in time and output.

use std::{collections::VecDeque, process::Stdio, sync::Arc, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::{Instant, sleep_until},
};
use tucano_api::ids::NodeName;
use tucano_planner::Event;

use super::AgentManager;
use crate::config_mgr::{Config, topology::WorkerNode};

/// How long output is read after the command has exited: its background children may keep the pipe open forever.
const OUTPUT_GRACE: Duration = Duration::from_millis(300);

impl AgentManager {
    /// Runs the topology's command for this worker and reports the result to the planner. Does not block. A command that
    /// is still running is not started again.
    pub fn restart(self: &Arc<Self>, node: NodeName, attempt: u32) {
        let is_first = self
            .restarting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(node.clone());
        if !is_first {
            tracing::info!(%node, "its restart command is still running");
            return;
        }
        let manager = self.clone();
        tokio::spawn(async move {
            tracing::info!(%node, attempt, "running its restart command");
            let config = manager.config.current();
            let result = match config.topology.workers.iter().find(|w| w.name == node) {
                Some(worker) => run(worker, &config).await,
                None => Err("it has left the topology".to_owned()),
            };
            if let Err(error) = &result {
                tracing::warn!(%node, attempt, %error, "its restart command failed");
            }
            manager
                .restarting
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .remove(&node);
            let event = Event::RestartFinished { node, result };
            if let Err(error) = manager.state.observe(event).await {
                tracing::info!(%error, "the result of a restart command was dropped");
            }
        });
    }
}

async fn run(worker: &WorkerNode, config: &Config) -> Result<(), String> {
    let argv = worker
        .restart
        .as_ref()
        .map(|command| command.argv())
        .ok_or("it has no restart command any more")?;
    let (program, arguments) = argv.split_first().ok_or("its restart command is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("TUCANO_NODE", worker.name.as_str())
        .env("TUCANO_NODE_IP", worker.ip.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot run {program:?}: {error}"))?;
    let group = child.id();
    let most = usize::try_from(config.limits.restart_output_bytes.0).unwrap_or(usize::MAX);
    let mut output = Output::new(most);
    let ended = tokio::time::timeout(config.restart_timeout.0, end(&mut child, &mut output)).await;
    let Ok(status) = ended else {
        kill_group(group);
        child.wait().await.map_err(|error| error.to_string())?;
        let after = config.restart_timeout;
        return Err(format!(
            "killed: it did not end within {after}{}",
            output.suffix()
        ));
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{status}{}", output.suffix())),
        Err(error) => Err(format!("cannot wait for it: {error}")),
    }
}

/// Waits for the command's exit while reading its output.
async fn end(child: &mut Child, output: &mut Output) -> std::io::Result<std::process::ExitStatus> {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut status, mut until) = (None, None);
    let (mut from_out, mut from_err) = ([0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            read = read_some(&mut stdout, &mut from_out) => output.stdout.push(&from_out[..read]),
            read = read_some(&mut stderr, &mut from_err) => output.stderr.push(&from_err[..read]),
            ended = child.wait(), if status.is_none() => {
                status = Some(ended?);
                until = Some(Instant::now() + OUTPUT_GRACE);
            }
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => break,
        }
        if let (Some(status), None, None) = (status, &stdout, &stderr) {
            return Ok(status);
        }
    }
    status.map_or_else(|| Err(std::io::Error::other("it did not end")), Ok)
}

/// Reads once; at end of file the pipe is dropped, and later calls are pending.
async fn read_some<R: AsyncRead + Unpin>(pipe: &mut Option<R>, buffer: &mut [u8]) -> usize {
    let Some(open) = pipe else {
        return std::future::pending().await;
    };
    let read = open.read(buffer).await.unwrap_or(0);
    if read == 0 {
        *pipe = None;
    }
    read
}

fn kill_group(group: Option<u32>) {
    let group = group
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(group) = group
        && let Err(error) = kill_process_group(group, Signal::KILL)
    {
        tracing::warn!(%error, "cannot kill a restart command that timed out");
    }
}

/// The end of a command's output. Each stream has its half, so that a long one does not displace the other's message.
struct Output {
    stdout: Tail,
    stderr: Tail,
}

impl Output {
    fn new(most: usize) -> Self {
        Self {
            stdout: Tail::new(most / 2),
            stderr: Tail::new(most.div_ceil(2)),
        }
    }

    /// `: <text>` on one line, stderr last; empty without output.
    fn suffix(&self) -> String {
        let text = format!("{} {}", self.stdout.text(), self.stderr.text());
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() {
            return String::new();
        }
        format!(": {}", words.join(" "))
    }
}

/// The last bytes of a stream.
struct Tail {
    bytes: VecDeque<u8>,
    most: usize,
}

impl Tail {
    fn new(most: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            most,
        }
    }

    fn push(&mut self, more: &[u8]) {
        self.bytes.extend(more);
        let excess = self.bytes.len().saturating_sub(self.most);
        self.bytes.drain(..excess);
    }

    fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests;
