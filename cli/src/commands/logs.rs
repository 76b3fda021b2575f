//! `logs`: what processes wrote.

use tucano_api::ids::{ProcessId, ServiceName};

use crate::{
    Error,
    args::{Logs, Stream},
    client::Client,
    output,
};

pub(super) async fn run(client: &Client, logs: &Logs) -> Result<(), Error> {
    let query = query(logs);
    // A process's name is also a possible name of a service; a service of that name goes first.
    let of_service = client
        .stream(&format!("/v1/services/{}/logs?{query}", name(&logs.name)?))
        .await;
    let mut response = match of_service {
        Err(Error::NotFound(_)) if logs.name.parse::<ProcessId>().is_ok() => {
            client
                .stream(&format!("/v1/processes/{}/logs?{query}", logs.name))
                .await?
        }
        result => result?,
    };
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(client.broken("reading the logs"))?
    {
        output::bytes(&chunk)?;
    }
    Ok(())
}

/// Names of processes are names of services, but for their length.
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
    fn the_query_says_what_was_asked_for() {
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
    fn names_cannot_lead_elsewhere() {
        for wrong in ["../nodes", "a b", "", "A"] {
            assert_eq!(name(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
