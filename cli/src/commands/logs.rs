//! `logs`: the output of processes.

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
    let query = query(logs);
    // A process's name may also be the name of a service, which then takes precedence.
    let of_service = client
        .stream(&format!("/v1/services/{}/logs?{query}", name(&logs.name)?))
        .await;
    let (mut response, process) = match of_service {
        Err(Error::NotFound(_)) if logs.name.parse::<ProcessId>().is_ok() => {
            let path = format!("/v1/processes/{}/logs?{query}", logs.name);
            (client.stream(&path).await?, Some(logs.name.as_str()))
        }
        result => (result?, None),
    };
    let mut lines = Lines::default();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(client.transfer_error("reading the logs"))?
    {
        match global.json {
            true => print(lines.push(&chunk), process)?,
            false => output::bytes(&chunk)?,
        }
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

fn query(logs: &Logs) -> String {
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
    format!("stream={stream}{tail}{follow}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_holds_the_options() {
        let logs = |tail, follow, stream| Logs {
            name: "a".to_owned(),
            follow,
            tail,
            stream,
        };
        assert_eq!(query(&logs(None, false, Stream::Both)), "stream=both");
        assert_eq!(
            query(&logs(Some(5), true, Stream::Stderr)),
            "stream=stderr&tail=5&follow=true"
        );
    }

    #[test]
    fn lines_are_complete_however_they_arrive() {
        let mut lines = Lines::default();
        assert!(lines.push(b"hello-1 | a").is_empty());
        assert_eq!(
            lines.push(b"b\n\nhello-2 | c\nd"),
            [&b"hello-1 | ab"[..], b"", b"hello-2 | c"]
        );
        assert_eq!(lines.rest(), [b"d"]);
        assert_eq!(
            Lines::default().push(&vec![b'x'; MAX_LINE_BYTES + 1]).len(),
            1
        );
    }

    #[test]
    fn the_process_of_a_line_is_named() {
        let of_service = object("hello-1 | a | b", None);
        assert_eq!(of_service, json!({ "process": "hello-1", "line": "a | b" }));
        let of_process = object("a | b", Some("hello-1"));
        assert_eq!(of_process, json!({ "process": "hello-1", "line": "a | b" }));
    }

    #[test]
    fn names_cannot_change_the_path() {
        for wrong in ["../nodes", "a b", "", "A"] {
            assert_eq!(name(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
