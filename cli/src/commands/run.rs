//! `run`: begins a run, shows its output as it is written, and ends with its exit code.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tucano_api::{
    ids::{ProcessId, ServiceName},
    jobs::{Attempt, NO_CODE, Run, RunRequest},
    logs::OutputStream,
    service::ServiceConfig,
};

use super::deploy;
use crate::{
    Error,
    args::{Global, RunArguments, Wait},
    client::Client,
    image::Source,
    output,
};

/// Time between two looks at the run.
const INTERVAL: Duration = Duration::from_millis(250);
/// How often the output of a process is asked for, which moves to another place at its end.
const LOG_ATTEMPTS: u32 = 10;
/// How long the removal of what was deployed for a run may take.
const REMOVAL: Duration = Duration::from_secs(60);
/// Exit code of a command that the interrupt key ended.
pub(super) const INTERRUPTED: u8 = 130;

pub(super) async fn run(
    client: &Client,
    global: &Global,
    arguments: &RunArguments,
) -> Result<(), Error> {
    if !is_file(&arguments.target) {
        let name: ServiceName = arguments.target.parse().map_err(|error| {
            Error::Usage(format!(
                "{error}; or write the path of a configuration, such as ./task.toml"
            ))
        })?;
        return begin(client, global, &name, arguments).await;
    }
    if arguments.detach {
        let message = "--detach: the job of a configuration is removed after its run, so this waits for it: deploy it instead";
        return Err(Error::Usage(message.to_owned()));
    }
    let source = Source::of_service(Path::new(&arguments.target), None)?;
    let source = for_one_run(source)?;
    let name = source.config.name.clone();
    let no_wait = Wait {
        no_wait: true,
        timeout: Duration::ZERO,
    };
    deploy::deploy(client, &source, no_wait).await?.1?;
    let ended = begin(client, global, &name, arguments).await;
    let path = format!("/v1/services/{name}?wait=true");
    if let Err(error) = client.delete(&path, REMOVAL).await {
        output::status(&format!("warning: {name} is not removed: {error}"));
    }
    ended
}

/// What looks like a path, or is a file that is not named as a service.
fn is_file(target: &str) -> bool {
    target.contains(['/', '.']) || Path::new(target).is_file()
}

/// The configuration as a job of its own, which is removed after its run.
fn for_one_run(source: Source) -> Result<Source, Error> {
    let config = &source.config;
    if !config.volume.is_empty() {
        output::status("the run has no volumes: those belong to the slots of a service");
    }
    let name: String = config.name.as_str().chars().take(40).collect();
    let now = jiff::Timestamp::now().as_millisecond();
    let name = format!("{name}-run-{:04x}", now & 0xffff);
    let name = name
        .parse()
        .map_err(|error: tucano_api::ids::InvalidId| Error::Usage(error.to_string()))?;
    let once = match config.is_job() {
        true => ServiceConfig {
            schedule: None,
            timezone: None,
            overlap: None,
            catch_up: None,
            ..config.clone()
        },
        false => config.for_run(None),
    };
    Ok(source.with_config(ServiceConfig { name, ..once }))
}

async fn begin(
    client: &Client,
    global: &Global,
    name: &ServiceName,
    arguments: &RunArguments,
) -> Result<(), Error> {
    let command = (!arguments.command.is_empty()).then(|| arguments.command.clone());
    let body = serde_json::to_string(&RunRequest {
        command,
        once: false,
    });
    let body = body.map_err(|error| Error::Usage(error.to_string()))?;
    let answer = client.post(&format!("/v1/jobs/{name}/runs"), body).await?;
    let run: Run = client.parse(&answer)?;
    if arguments.detach {
        return match global.json {
            true => output::data(&answer),
            false => output::data(&format!("run {} is begun", run.id())),
        };
    }
    let (run, interrupted) = follow(client, global.json, run).await?;
    if global.json {
        let json = serde_json::to_string(&run).map_err(|error| Error::Usage(error.to_string()))?;
        output::data(&json)?;
    }
    match run.code() {
        _ if interrupted => Err(Error::Command(INTERRUPTED)),
        0 => Ok(()),
        code => {
            if code == NO_CODE {
                output::status(&format!("tucano: run {} {}", run.id(), run.describe()));
            }
            Err(Error::Command(u8::try_from(code).unwrap_or(u8::MAX)))
        }
    }
}

/// Shows the output of a run until it has ended, all of it on standard error if that is wanted. The interrupt key stops it, and a second time leaves it.
pub(super) async fn follow(
    client: &Client,
    on_stderr: bool,
    begun: Run,
) -> Result<(Run, bool), Error> {
    let path = format!("/v1/jobs/{}/runs/{}", begun.service, begun.number);
    let mut interrupts =
        signal(SignalKind::interrupt()).map_err(|source| Error::Runtime { source })?;
    let (mut shown, mut outputs) = (BTreeSet::new(), JoinSet::new());
    let (mut interrupted, mut said) = (false, String::new());
    loop {
        let run: Run = client.get(&path).await?;
        for attempt in &run.attempts {
            let is_known = attempt.started_at.is_some() || attempt.end.is_some();
            if is_known && shown.insert(attempt.process.clone()) {
                let (client, attempt) = (client.clone(), attempt.clone());
                outputs.spawn(async move { show(&client, &attempt, on_stderr).await });
            }
        }
        if !run.is_active() {
            while let Some(shown) = outputs.join_next().await {
                shown.unwrap_or(Ok(()))?;
            }
            return Ok((run, interrupted));
        }
        let waits = waiting(&run);
        if waits != said {
            output::status(&waits);
            said = waits;
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = interrupts.recv() => {
                if interrupted {
                    output::status(&format!("run {} is being stopped", run.id()));
                    return Ok((run, true));
                }
                interrupted = true;
                client.delete(&path, Duration::ZERO).await?;
            }
        }
    }
}

/// What a run is waiting for; empty while its processes run.
fn waiting(run: &Run) -> String {
    match (run.state(), run.retry_at) {
        ("waiting", _) => format!("run {} waits for an earlier one", run.id()),
        (_, Some(_)) => format!(
            "a process of run {} has failed {} times of {}: it is tried again",
            run.id(),
            run.failures,
            run.retries.saturating_add(1)
        ),
        _ => String::new(),
    }
}

/// Shows the output of a process until its end.
async fn show(client: &Client, attempt: &Attempt, on_stderr: bool) -> Result<(), Error> {
    for _ in 0..LOG_ATTEMPTS {
        match copy(client, &attempt.process, on_stderr).await {
            Ok(()) => return Ok(()),
            Err(error @ Error::Output { .. }) => return Err(error),
            // It may not be there yet, or be moving.
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
    output::status(&format!(
        "the output of {} cannot be read: `tucano logs {}` may show it later",
        attempt.process, attempt.process
    ));
    Ok(())
}

async fn copy(client: &Client, process: &ProcessId, on_stderr: bool) -> Result<(), Error> {
    #[derive(serde::Deserialize)]
    struct Line {
        line: String,
        #[serde(default)]
        stream: Option<OutputStream>,
    }
    let path = format!("/v1/processes/{process}/logs?stream=both&follow=true&format=json");
    let mut response = client.stream(&path).await?;
    let mut buffer = Vec::new();
    let step = "reading the output";
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(client.transfer_error(step))?
    {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let Ok(Line { line, stream }) = serde_json::from_slice(&line) else {
                continue;
            };
            let text = format!("{line}\n");
            match stream {
                Some(OutputStream::Stderr) => drop(io::stderr().lock().write_all(text.as_bytes())),
                _ if on_stderr => drop(io::stderr().lock().write_all(text.as_bytes())),
                _ => output::bytes(text.as_bytes())?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_path_is_a_file() {
        assert!(is_file("./task.toml") && is_file("task.toml") && is_file("dir/task"));
        assert!(!is_file("web"));
    }
}
