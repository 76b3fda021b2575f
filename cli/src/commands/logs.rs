//! `logs`: the output of processes.

use reqwest::Response;
use serde_json::{Value, json};
use tucano_api::ids::{ProcessId, ServiceName};

use crate::{
    Error,
    args::{Global, Logs, Stream},
    client::Client,
    output,
};

/// Longest line that is kept until its end has come, in bytes; a longer one becomes several objects.
const MAX_LINE_BYTES: usize = 1 << 20;

pub(super) async fn run(client: &Client, global: &Global, logs: &Logs) -> Result<(), Error> {
    let format = if global.json {
        Format::Json
    } else {
        Format::Text
    };
    match open(client, logs, format).await {
        Err(error) if error.code() == "invalid_query" => {
            if logs.since.is_some() || logs.timestamps {
                let message = "the controller is of an earlier version, without --since and --timestamps: upgrade it";
                return Err(Error::Controller(message.to_owned().into()));
            }
            let (response, process) = open(client, logs, Format::Text).await?;
            copy_as_objects(client, response, process).await
        }
        opened => copy(client, opened?.0).await,
    }
}

/// How the controller sends lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// Requests the output of the service of that name, else of the process, whose name is returned.
async fn open<'a>(
    client: &Client,
    logs: &'a Logs,
    format: Format,
) -> Result<(Response, Option<&'a str>), Error> {
    let query = query(logs, format);
    let name = name(&logs.name)?;
    // A process's name may also be the name of a service, which then takes precedence.
    let of_service = client
        .stream(&format!("/v1/services/{name}/logs?{query}"))
        .await;
    match of_service {
        Err(Error::NotFound(_)) if name.parse::<ProcessId>().is_ok() => {
            let path = format!("/v1/processes/{name}/logs?{query}");
            Ok((client.stream(&path).await?, Some(name)))
        }
        result => Ok((result?, None)),
    }
}

async fn copy(client: &Client, mut response: Response) -> Result<(), Error> {
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(client.transfer_error("reading the logs"))?
    {
        output::bytes(&chunk)?;
    }
    Ok(())
}

/// Makes objects of the text of a controller of an earlier version.
async fn copy_as_objects(
    client: &Client,
    mut response: Response,
    process: Option<&str>,
) -> Result<(), Error> {
    let mut lines = Lines::default();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(client.transfer_error("reading the logs"))?
    {
        print(lines.push(&chunk), process)?;
    }
    print(lines.rest(), process)
}

/// One JSON object a line.
fn print(lines: Vec<Vec<u8>>, process: Option<&str>) -> Result<(), Error> {
    for line in lines {
        output::data(&object(&String::from_utf8_lossy(&line), process).to_string())?;
    }
    Ok(())
}

/// Lines of a service begin with their process: `hello-1 | `.
fn object(line: &str, process: Option<&str>) -> Value {
    match (process, line.split_once(" | ")) {
        (Some(process), _) => json!({ "process": process, "line": line }),
        (None, Some((process, line))) => json!({ "process": process, "line": line }),
        (None, None) => json!({ "line": line }),
    }
}

/// Complete lines of a stream.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        self.0.extend_from_slice(chunk);
        let end = match self.0.iter().rposition(|byte| *byte == b'\n') {
            Some(newline) => newline + 1,
            None if self.0.len() > MAX_LINE_BYTES => self.0.len(),
            None => return Vec::new(),
        };
        let complete: Vec<u8> = self.0.drain(..end).collect();
        let text = complete.strip_suffix(b"\n").unwrap_or(&complete);
        text.split(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// What has no newline at the end of the stream.
    fn rest(self) -> Vec<Vec<u8>> {
        match self.0.is_empty() {
            true => Vec::new(),
            false => vec![self.0],
        }
    }
}

/// Checks a name of a service or process.
pub(super) fn name(name: &str) -> Result<&str, Error> {
    let known = name.parse::<ServiceName>().map(drop);
    match known.or_else(|error| name.parse::<ProcessId>().map(drop).map_err(|_| error)) {
        Ok(()) => Ok(name),
        Err(error) => Err(Error::Usage(error.to_string())),
    }
}

fn query(logs: &Logs, format: Format) -> String {
    let stream = match logs.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::Both => "both",
    };
    let tail = logs
        .tail
        .map(|lines| format!("&tail={lines}"))
        .unwrap_or_default();
    let follow = if logs.follow { "&follow=true" } else { "" };
    // Neither form has a character that a query must not have.
    let since = logs
        .since
        .map(|since| format!("&since={since}"))
        .unwrap_or_default();
    let times = if logs.timestamps {
        "&timestamps=true"
    } else {
        ""
    };
    let format = match format {
        Format::Text => "",
        Format::Json => "&format=json",
    };
    format!("stream={stream}{tail}{follow}{since}{times}{format}")
}

#[cfg(test)]
mod tests;
