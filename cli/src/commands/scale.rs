//! `scale`: changes how many processes are kept alive.

use serde_json::json;
use tucano_api::ids::ServiceName;

use super::deploy;
use crate::{
    Error,
    args::{Global, Wait},
    client::Client,
};

pub(super) async fn run(
    client: &Client,
    global: &Global,
    name: &ServiceName,
    concurrency: u32,
    wait: Wait,
) -> Result<(), Error> {
    let change = json!({ "concurrency": concurrency });
    let answer = client
        .patch(&format!("/v1/services/{name}"), &change)
        .await?;
    deploy::finish_answer(client, global, &answer, wait).await
}
