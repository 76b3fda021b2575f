//! `rollback`: goes back to an earlier revision.

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
    revision: Option<u64>,
    wait: Wait,
) -> Result<(), Error> {
    let query = revision.map_or_else(String::new, |revision| format!("?revision={revision}"));
    let path = format!("/v1/services/{name}/rollback{query}");
    let answer = client.post(&path, String::new()).await?;
    deploy::finish_answer(client, global, &answer, wait).await
}
