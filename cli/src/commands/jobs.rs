//! `jobs`: jobs, and the runs of one of them or of a service.

use tucano_api::{
    ids::ServiceName,
    jobs::{JobView, Run},
};

use crate::{
    Error,
    args::Global,
    client::Client,
    output,
    table::{self, Style},
};

pub(super) async fn run(
    client: &Client,
    global: &Global,
    name: Option<&ServiceName>,
) -> Result<(), Error> {
    let Some(name) = name else {
        let text = client.get_text("/v1/jobs").await?;
        if global.json {
            return output::data(&text);
        }
        let jobs: Vec<JobView> = client.parse(&text)?;
        return output::data(&table::jobs(&jobs, Style::of_stdout()));
    };
    let text = client.get_text(&format!("/v1/jobs/{name}/runs")).await?;
    if global.json {
        return output::data(&text);
    }
    let runs: Vec<Run> = client.parse(&text)?;
    output::data(&table::runs(&runs, Style::of_stdout()))
}
