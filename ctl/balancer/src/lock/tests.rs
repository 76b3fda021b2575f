use super::*;

#[tokio::test]
async fn a_second_instance_names_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("balancer.lock");
    let first = Lock::take(&path).await.unwrap();
    let error = Lock::take(&path).await.unwrap_err().to_string();
    let holder = format!("(process {})", std::process::id());
    assert!(error.contains(&holder), "{error}");
    drop(first);
    Lock::take(&path).await.unwrap();
}

#[tokio::test]
async fn a_released_lock_tells_the_next_holder() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("balancer.lock");
    let first = Lock::take(&path).await.unwrap();
    assert!(!first.follows_draining);
    let released = first.release().unwrap();
    assert!(!released.has_successor());
    let crashed = Lock::take(&path).await.unwrap();
    assert!(crashed.follows_draining);
    drop(crashed);
    let mut second = Lock::take(&path).await.unwrap();
    assert!(second.follows_draining, "the first may still accept");
    assert!(!released.has_successor(), "it does not listen yet");
    let error = Lock::take(&path).await.unwrap_err().to_string();
    let holder = format!("(process {})", std::process::id());
    assert!(error.contains(&holder), "{error}");
    second.listening().unwrap();
    released.wait_successor().await;
    drop(second);
    assert!(!Lock::take(&path).await.unwrap().follows_draining);
}

#[tokio::test]
async fn an_unusable_path_is_named() {
    let error = Lock::take(Path::new("/nowhere/balancer.lock"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/nowhere/balancer.lock"));
}
