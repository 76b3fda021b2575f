use axum::body::Body as AxumBody;
use futures_util::{StreamExt, stream};

use super::*;

async fn read(body: AxumBody, time: Duration) -> Result<usize, axum::Error> {
    let body = AxumBody::new(BodyDeadline::new(body, time));
    axum::body::to_bytes(body, usize::MAX)
        .await
        .map(|bytes| bytes.len())
}

#[tokio::test]
async fn a_trickling_body_fails_at_its_deadline() {
    let one = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))]);
    let trickle = AxumBody::from_stream(one.chain(stream::pending()));
    let error = read(trickle, Duration::from_millis(20)).await.unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string);
    let text = format!("{error} {source:?}");
    assert!(text.contains("limits.body_time"), "{text}");
}

#[tokio::test]
async fn arrived_bytes_extend_the_deadline() {
    let chunk = || Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1 << 20]));
    let late = stream::once(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        chunk()
    });
    let body = AxumBody::from_stream(stream::iter([chunk()]).chain(late));
    assert_eq!(read(body, Duration::from_millis(5)).await.unwrap(), 2 << 20);
}
